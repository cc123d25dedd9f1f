"""Calibration inputs in whatever form they come, as batches that a lowered graph runs on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.observe import device_of

Batch = tuple[Tensor, ...]
Calibration = Tensor | Iterable[Tensor | Sequence[Tensor]]
"""Unlabelled inputs: one tensor (images along the first axis), or batches of them."""

_AT_ONCE = 64  # images of a single tensor


def batches_of(calibration: Calibration, model: nn.Module, inputs: int = 1) -> Iterator[Batch]:
    """Batches as tuples of tensors, where ``model`` lies and in float32.

    Args:
        calibration: A single tensor is cut into batches of 64. Else each batch is a tensor, or a tuple or
            list of one tensor for each input of the model, as a ``DataLoader`` gives it.
        model: What will be run on them.
        inputs: How many inputs it has.

    Raises:
        BadArgument: A batch is something else, or has more or fewer tensors.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.zeros(3, 2))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=2)
        >>> [tuple(x.shape) for (x,) in batches_of(loader, nn.Linear(2, 1))]
        [(2, 2), (1, 2)]
    """
    where = device_of(model)
    if isinstance(calibration, Tensor):
        calibration = torch.split(calibration, _AT_ONCE)
    for batch in calibration:
        parts = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        kinds = [type(part).__name__ for part in parts]
        if len(parts) != inputs or not all(isinstance(part, Tensor) for part in parts):
            raise BadArgument(
                "calibration",
                wanted=f"batches of {inputs} tensor{'s' * (inputs != 1)}, one for each input of the model",
                found=f"a {type(batch).__name__} of {', '.join(kinds) or 'nothing'}",
                do="Leave labels out.",
            )
        yield tuple(settled(part, where) for part in parts)


def settled(x: Tensor, where: torch.device) -> Tensor:
    """An input as a lowered graph takes it: on its device, in float32 if it has a point, open to autograd."""
    x = x.to(where, torch.float32) if x.is_floating_point() else x.to(where)
    return x.clone() if x.is_inference() else x
