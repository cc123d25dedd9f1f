"""Calibration inputs as a lowered graph takes them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gracile.observe import Batch, Calibration, batches_of, device_of


def float32_batches(
    calibration: Calibration, model: nn.Module, inputs: int = 1, *, argument: str = "calibration"
) -> Iterator[Batch]:
    """Batches as tuples of tensors, where ``model`` lies and in float32.

    Args:
        calibration: One tensor, or batches; see :func:`gracile.observe.batches_of`.
        model: What will be run on them.
        inputs: How many inputs it has.
        argument: What errors call the inputs.

    Raises:
        BadArgument: There are none, a batch is something else, or has more or fewer tensors.
        NonFiniteError: An input holds NaN.

    Example:
        >>> [x.dtype for (x,) in float32_batches(torch.zeros(3, 2).half(), nn.Linear(2, 1))]
        [torch.float32]
    """
    where = device_of(model)
    for batch in batches_of(calibration, takes=inputs, argument=argument):
        yield tuple(settled(x, where) for x in batch)


def settled(x: Tensor, where: torch.device) -> Tensor:
    """An input as a lowered graph takes it: on its device, in float32 if it has a point, open to autograd."""
    x = x.to(where, torch.float32) if x.is_floating_point() else x.to(where)
    return x.clone() if x.is_inference() else x
