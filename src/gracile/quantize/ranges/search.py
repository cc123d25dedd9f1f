"""The search for a span that several range estimators share: shrink the extremes, coarsely, then finely."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..grid import Grid, grid

_FINEST = 0.02  # no span is shrunk below this share of the extremes


def best_grid(
    error: Callable[[Grid], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    bits: int,
    signed: bool,
    symmetric: bool,
    steps: int,
    pairs: bool = False,
    many: bool = False,
) -> Grid:
    """The grid of least ``error`` among spans ``low * a .. high * b`` with ``a`` and ``b`` up to 1.

    Args:
        error: Grids with one entry a row to one number a row, ``(rows,)``; lower is better.
        low: Smallest value of each row, ``(rows,)``.
        high: Largest value, ``(rows,)``.
        bits: 2 to 8.
        signed: Integers may be negative.
        symmetric: The same reach on both sides of zero.
        steps: Spans tried in each scan.
        pairs: Try every pair of ends, for errors with many local minima, rather than one end after the other.
        many: There is one row, and ``error`` takes any number of grids for it at once.

    Example:
        >>> wanted = lambda g: (g.scale * g.qmax - 3).abs()  # a reach of 3
        >>> ten = torch.tensor([10.0])
        >>> g = best_grid(wanted, -ten, ten, bits=8, signed=True, symmetric=True, steps=32)
        >>> abs(float(g.scale * 127) - 3) < 0.01
        True
    """

    def make(a: Tensor, b: Tensor) -> Grid:
        return grid(low * a, high * b, bits=bits, signed=signed, symmetric=symmetric)

    both = not symmetric and bool(((low < 0) & (high > 0)).any())
    search = _pairs if pairs else _descent
    return make(*search(_Scan(lambda a, b: error(make(a, b)), many), low, high, both, steps))


def only_row(found: Grid) -> Grid:
    """The grid of a single row as scalars, in float32."""
    scale, zero_point = found.scale[0].float(), found.zero_point[0].float()
    return Grid(scale=scale, zero_point=zero_point, qmin=found.qmin, qmax=found.qmax)


class _Scan:
    """Finds the least error among tries, row by row."""

    def __init__(self, error: Callable[[Tensor, Tensor], Tensor], many: bool) -> None:
        self.error, self.many = error, many

    def better(
        self, a: Tensor, b: Tensor, best: Tensor, tries_a: Tensor, tries_b: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``a``, ``b`` and their error, or the best of the tries ``(tries, rows)`` where that is less."""
        if self.many:
            found = self.error(tries_a[:, 0], tries_b[:, 0])[:, None]
        else:
            found = torch.stack([self.error(*shares) for shares in zip(tries_a, tries_b, strict=True)])
        least, at = found.min(0)
        less = least < best
        a = torch.where(less, tries_a.gather(0, at[None])[0], a)
        b = torch.where(less, tries_b.gather(0, at[None])[0], b)
        return a, b, torch.where(less, least, best)


def _pairs(scan: _Scan, low: Tensor, high: Tensor, both: bool, steps: int) -> tuple[Tensor, Tensor]:
    """Shares of ``low`` and ``high`` with the least error: all pairs coarsely, then those around the best."""
    a, b = torch.ones_like(low), torch.ones_like(high)
    best = scan.error(a, b)
    steps = steps if both else 8 * steps  # one axis only
    coarse = torch.linspace(1 / steps, 1, steps) - 1
    for scanned in (coarse, torch.linspace(-1 / steps, 1 / steps, steps | 1)):
        offsets = scanned.to(low.device)
        left = offsets.repeat_interleave(len(offsets)) if both else offsets
        right = offsets.repeat(len(offsets)) if both else offsets
        tries = [(center + off[:, None]).clamp(_FINEST, 1) for center, off in ((a, left), (b, right))]
        a, b, best = scan.better(a, b, best, *tries)
    return a, b


def _descent(scan: _Scan, low: Tensor, high: Tensor, both: bool, steps: int) -> tuple[Tensor, Tensor]:
    """Shares of ``low`` and ``high`` with the least error: both together, then each by itself."""
    a, b = torch.ones_like(low), torch.ones_like(high)
    best = scan.error(a, b)
    sides = [(True, True)]
    if both:
        sides += [(True, False), (False, True)] * 2
    for left, right in sides:
        reach = 1.0
        for _ in range(2):  # coarse, then fine
            upper = reach if bool((torch.minimum(a, b) < 1).any()) else 0.0
            offsets = torch.linspace(-reach, upper, 2 * steps if upper else steps)[:, None].to(low.device)
            tries_a = (a + offsets * left).clamp(_FINEST, 1)
            tries_b = (b + offsets * right).clamp(_FINEST, 1)
            a, b, best = scan.better(a, b, best, tries_a, tries_b)
            reach /= steps
    return a, b
