"""Labelled examples for criteria that differentiate a loss, and the classes a model itself predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.graph import evaluating
from gracile.observe import Batch, chunks

Example = tuple[Batch, Tensor]
"""Inputs of the model and their targets, one batch."""
Labelled = tuple[Tensor, Tensor] | Iterable[tuple[Tensor | Batch, Tensor]]
"""Inputs with targets along the first axis: ``(images, labels)``, or batches of them."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch to one number an example ``(batch,)``."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each example; positions of one example (pixels, words) are averaged.

    Args:
        outputs: Logits ``(batch, classes, ...)``.
        targets: Classes ``(batch, ...)``.

    Example:
        >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([1])).item(), 3)
        0.693
    """
    losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
    return losses.reshape(len(outputs), -1).mean(1)


def labelled_chunks(labelled: Labelled, size: int, model: nn.Module | None = None) -> tuple[Example, ...]:
    """Cut labelled examples into batches of one size; what is left over stays out.

    Args:
        labelled: Inputs with their targets.
        size: Examples a batch; fewer when there are not so many.
        model: Where it lies, the batches go.

    Raises:
        BadArgument: There are none, or inputs and targets differ in number.
        NonFiniteError: An input holds NaN.

    Example:
        >>> cut = labelled_chunks((torch.zeros(5, 1), torch.arange(5)), 2)
        >>> [(tuple(inputs[0].shape), targets.tolist()) for inputs, targets in cut]
        [((2, 1), [0, 1]), ((2, 1), [2, 3])]
    """
    pair = isinstance(labelled, tuple) and len(labelled) == 2 and isinstance(labelled[1], Tensor)
    pairs = cast("list[tuple[Tensor | Batch, Tensor]]", [labelled] if pair else list(labelled))
    batches: list[Batch] = []
    for inputs, targets in pairs:
        parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        if any(len(part) != len(targets) for part in parts):
            raise BadArgument(
                "labelled",
                wanted="one target for each input",
                found=f"{len(parts[0])} inputs and {len(targets)} targets",
            )
        batches.append((*parts, targets))
    return tuple((batch[:-1], batch[-1]) for batch in chunks(batches, size, model))


def predicted(model: nn.Module, calibration: Iterable[Batch]) -> tuple[Example, ...]:
    """Unlabelled batches with the classes that ``model`` gives the highest output."""
    found: list[Example] = []
    with evaluating(model), torch.no_grad():
        for batch in calibration:
            found.append((batch, logits(model(*[x.clone() for x in batch])).argmax(1)))
    return tuple(found)


def logits(outputs: object) -> Tensor:
    """The one tensor of outputs ``(batch, classes, ...)`` that a loss takes in.

    Raises:
        UnsupportedOperation: The model gives something else.
    """
    if isinstance(outputs, tuple | list) and len(outputs) == 1:
        outputs = outputs[0]
    if isinstance(outputs, Tensor) and outputs.dim() > 1:
        return outputs
    raise UnsupportedOperation(
        "outputs",
        wanted="one tensor of outputs (batch, classes, ...) for the loss",
        found=type(outputs).__name__,
        do="Choose a criterion that needs no loss, such as reconstruction or l1.",
    )


def plain_attention() -> AbstractContextManager[None]:
    """Attention by plain products: the fused kernels have no derivative on every device."""
    return sdpa_kernel(SDPBackend.MATH)
