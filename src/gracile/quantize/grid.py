"""From a range of real values to a grid: scale, zero point and integer limits.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018, arXiv 1712.05877, section 2.1; zero is always exactly on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.nn import fake_quantize

TINY = torch.finfo(torch.float32).tiny
MOST_BIAS = 2**30
"""Largest bias, in steps of the accumulator."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """``scale * (q - zero_point)`` for ``q`` in ``qmin..qmax``; tensors are scalar or one entry a channel."""

    scale: Tensor
    zero_point: Tensor
    qmin: int
    qmax: int

    def round(self, x: Tensor, axis: int | None = None) -> Tensor:
        """``x`` rounded to the grid; ``axis`` is the axis that the scales run along."""
        return fake_quantize(x, self.scale, self.zero_point, self.qmin, self.qmax, axis)


def limits(bits: int, signed: bool, symmetric: bool) -> tuple[int, int]:
    """Smallest and largest integer. Signed symmetric grids leave the lowest integer out, so that they mirror.

    Raises:
        BadArgument: ``bits`` lies outside 2..8.

    Example:
        >>> limits(8, signed=True, symmetric=True), limits(4, signed=True, symmetric=False)
        ((-127, 127), (-8, 7))
        >>> limits(8, signed=False, symmetric=False)
        (0, 255)
    """
    if not 2 <= bits <= 8:
        raise BadArgument("bits", wanted="2 to 8", found=f"{bits=}")
    if not signed:
        return 0, 2**bits - 1
    low = -(2 ** (bits - 1))
    return (low + 1 if symmetric else low), -low - 1


def grid(low: Tensor, high: Tensor, *, bits: int, signed: bool, symmetric: bool) -> Grid:
    """The grid that spans ``low..high``, widened to hold zero.

    Asymmetric: ``scale = (high - low) / (qmax - qmin)`` and the zero point is rounded. Symmetric: the zero
    point is fixed beforehand: 0 for signed integers; for unsigned ones 0 when no value is negative, else the
    middle.

    Args:
        low: Smallest value, any shape.
        high: Largest value, same shape.
        bits: 2 to 8.
        signed: Integers may be negative.
        symmetric: The same reach on both sides of zero.

    Example:
        >>> g = grid(torch.tensor(-1.0), torch.tensor(3.0), bits=2, signed=False, symmetric=False)
        >>> g.scale.item(), g.zero_point.item()
        (1.3333333730697632, 1.0)
        >>> g = grid(torch.tensor(-2.0), torch.tensor(1.0), bits=8, signed=False, symmetric=True)
        >>> g.zero_point.item()
        128.0
    """
    qmin, qmax = limits(bits, signed, symmetric)
    low, high = low.clamp(max=0), high.clamp(min=0)
    if not symmetric:
        scale = ((high - low) / (qmax - qmin)).clamp(min=TINY)
        zero_point = (qmin - torch.round(low / scale)).clamp(qmin, qmax)
        return Grid(scale=scale, zero_point=zero_point, qmin=qmin, qmax=qmax)
    middle = 0 if signed else 2 ** (bits - 1)
    zero_point = torch.where(low < 0, middle, 0 if not signed else middle).to(low.dtype)
    reach = torch.maximum(-low / (zero_point - qmin).clamp(min=1), high / (qmax - zero_point))
    return Grid(scale=reach.clamp(min=TINY), zero_point=zero_point, qmin=qmin, qmax=qmax)


def extremes(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest value, of all or for each index of ``axis``.

    Example:
        >>> [v.tolist() for v in extremes(torch.tensor([[1.0, 2.0], [-3.0, 0.0]]), 0)]
        [[1.0, -3.0], [2.0, 0.0]]
    """
    if axis is None:
        return x.min(), x.max()
    rows = rows_along(x, axis)
    return rows.amin(1), rows.amax(1)


def rows_along(x: Tensor, axis: int | None) -> Tensor:
    """``x`` as a matrix with one row per index of ``axis``, or one row."""
    return x.reshape(1, -1) if axis is None else x.movedim(axis, 0).flatten(1)
