"""Calibration inputs in whatever form they come: read here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, NonFiniteError

from .devices import device_of

Batch = tuple[Tensor, ...]
"""One tensor for each input of a model, along the first axis the same number of inputs."""
Calibration = Tensor | Iterable[Tensor | Sequence[Tensor]]
"""Unlabelled inputs: one tensor (images along the first axis), or batches of them."""

AT_ONCE = 64  # inputs of a single tensor


def batches_of(
    calibration: Calibration,
    model: nn.Module | None = None,
    *,
    takes: int | None = None,
    argument: str = "calibration",
) -> Iterator[Batch]:
    """Batches as tuples of tensors.

    Args:
        calibration: A single tensor is cut into batches of 64. Else each batch is a tensor, or a tuple or
            list of one tensor for each input of the model, as a ``DataLoader`` gives it.
        model: Where it lies, the batches go; left where they are without it.
        takes: How many tensors the model takes; default, as many as the first batch holds.
        argument: What errors call the inputs.

    Raises:
        BadArgument: There are none, a batch is something else, or it has more or fewer tensors.
        NonFiniteError: An input holds NaN.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.zeros(3, 2))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=2)
        >>> [tuple(x.shape) for (x,) in batches_of(loader)]
        [(2, 2), (1, 2)]
    """
    where = None if model is None else device_of(model)
    parts = torch.split(calibration, AT_ONCE) if isinstance(calibration, Tensor) else calibration
    empty = True
    for part in parts:
        batch = (part,) if not isinstance(part, Iterable) or isinstance(part, Tensor) else tuple(part)
        takes = max(1, len(batch)) if takes is None else takes
        if len(batch) != takes or not batch or not all(isinstance(x, Tensor) for x in batch):
            kinds = ", ".join(type(x).__name__ for x in batch) or "nothing"
            raise BadArgument(
                argument,
                wanted=f"batches of {takes} tensor{'s' * (takes != 1)}, one for each input of the model",
                found=f"a {type(part).__name__} of {kinds}",
                do="Leave labels out; where they are needed, labelled= takes them.",
            )
        if not len(batch[0]):
            continue
        for x in batch:
            _check_numbers(x, argument)
        empty = False
        yield batch if where is None else tuple(x.to(where) for x in batch)
    if empty:
        raise BadArgument(argument, wanted="at least one input", found="none")


def joined(calibration: Calibration, model: nn.Module | None = None, *, takes: int | None = None) -> Batch:
    """All calibration inputs as one batch; arguments and errors as of :func:`batches_of`.

    Example:
        >>> [x.tolist() for x in joined([[torch.zeros(1)], [torch.ones(2)]])]
        [[0.0, 1.0, 1.0]]
    """
    columns = zip(*batches_of(calibration, model, takes=takes), strict=True)
    return tuple(torch.cat(column) for column in columns)


def chunks(
    calibration: Calibration, size: int, model: nn.Module | None = None, *, takes: int | None = None
) -> tuple[Batch, ...]:
    """Cut calibration inputs into batches of one size; what is left over stays out.

    Args:
        calibration: Inputs of the model.
        size: Inputs a batch; fewer when there are not so many.
        model: Where it lies, the batches go.
        takes: How many tensors the model takes, to compare with.

    Raises:
        BadArgument: There are none, or batches hold another number of tensors.
        NonFiniteError: An input holds NaN.

    Example:
        >>> [tuple(b[0].shape) for b in chunks(torch.zeros(7, 2), size=3)]
        [(3, 2), (3, 2)]
    """
    whole = joined(calibration, model, takes=takes)
    size = min(size, len(whole[0]))
    count = len(whole[0]) // size
    return tuple(tuple(x[i * size : (i + 1) * size] for x in whole) for i in range(count))


def _check_numbers(x: Tensor, argument: str) -> None:
    rows = x.isnan().flatten(1).any(1) if x.dim() > 1 else x.isnan()
    bad = int(rows.sum())
    if bad:
        raise NonFiniteError(
            argument,
            wanted="numbers",
            found=f"NaN in {bad} of {len(rows)} inputs",
            do="Leave these inputs out, or look at how they are normalised.",
        )
