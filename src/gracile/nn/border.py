"""A constant map that differs near the borders only: what removed channels give under zero padding.

A channel that emits a constant gives a convolution with zero padding the same everywhere but near the
borders, where taps fall on padding. Over each axis of space the map has a few rows at the start, one that
repeats, and a few at the end. Those are stored and spread over the image at run time; with a fixed image size
a runtime folds that into one constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gracile.errors import BadArgument

from .attach import Part

Ends = tuple[tuple[int, int], ...]
"""Rows at the start and at the end of each axis of space that differ from those between."""


class BorderMap(Part):
    """Add a constant map to ``(batch, channels, *space)``.

    Args:
        table: ``(channels, *rows)``; along each axis ``before + 1 + after`` rows, of which row ``before``
            repeats.
        ends: ``(before, after)`` of each axis of space.

    Raises:
        BadArgument: The table's shape is not that of ``ends``.

    Example:
        >>> part = BorderMap(torch.tensor([[1.0, 0.0, 2.0]]), ends=((1, 1),))
        >>> part(torch.zeros(1, 1, 5)).tolist()
        [[[1.0, 0.0, 0.0, 0.0, 2.0]]]
    """

    table: Tensor

    def __init__(self, table: Tensor, ends: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.ends: Ends = tuple((int(a), int(b)) for a, b in ends)
        rows = tuple(a + 1 + b for a, b in self.ends)
        if tuple(table.shape[1:]) != rows:
            raise BadArgument("table", wanted=f"rows {rows}", found=f"{tuple(table.shape[1:])}")
        self.register_buffer("table", table.clone())

    @classmethod
    def of(cls, full: Tensor, tolerance: float) -> BorderMap:
        """Store a map ``(channels, *space)``: what equals its middle row within ``tolerance`` is one row.

        Example:
            >>> BorderMap.of(torch.tensor([[7.0, 3.0, 3.0, 3.0, 9.0]]), 0.0).table.tolist()
            [[7.0, 3.0, 9.0]]
        """
        ends = []
        for axis in range(1, full.dim()):
            before, after = _run(full, axis, tolerance)
            size = full.shape[axis]
            rows = [*range(before + 1), *range(size - after, size)]
            full = full.index_select(axis, torch.tensor(rows, device=full.device))
            ends.append((before, after))
        return cls(full, ends)

    def over(self, space: Sequence[int]) -> Tensor:
        """The map ``(channels, *space)`` for an image of that size.

        Raises:
            BadArgument: The image is smaller than the rows that are stored.
        """
        spread = self.table
        for axis, ((before, after), size) in enumerate(zip(self.ends, space, strict=True), start=1):
            if size < before + 1 + after:
                raise BadArgument(
                    "border",
                    wanted=f"at least {before + 1 + after} positions along each axis of space",
                    found=f"{size}",
                    do="Prune with carry_constants='nearest' for images of several sizes.",
                )
            middle = spread.narrow(axis, before, 1)
            shape = [size - before - after if d == axis else -1 for d in range(spread.dim())]
            parts = [middle.expand(shape)]
            parts = [spread.narrow(axis, 0, before), *parts] if before else parts
            parts = [*parts, spread.narrow(axis, before + 1, after)] if after else parts
            spread = torch.cat(parts, axis) if len(parts) > 1 else parts[0]
        return spread

    def plus(self, other: BorderMap) -> BorderMap:
        """The sum of two maps over the same axes."""
        pairs = zip(self.ends, other.ends, strict=True)
        ends = [(max(a[0], b[0]), max(a[1], b[1])) for a, b in pairs]
        space = [a + 1 + b for a, b in ends]
        return BorderMap(self.over(space) + other.over(space).to(self.table), ends)

    def forward(self, y: Tensor) -> Tensor:
        """Keep the shape ``(batch, channels, *space)``."""
        return y + self.over(y.shape[2:])

    def extra_repr(self) -> str:
        return f"{self.table.shape[0]} channels, ends={self.ends}"


def _run(full: Tensor, axis: int, tolerance: float) -> tuple[int, int]:
    """Rows before and after the run of equal ones around the middle."""
    rows = full.movedim(axis, 0).flatten(1)
    middle = rows.shape[0] // 2
    other = ((rows - rows[middle]).abs().amax(1) > tolerance).nonzero()[:, 0].tolist()
    first = max((i for i in other if i < middle), default=-1) + 1
    last = min((i for i in other if i > middle), default=rows.shape[0]) - 1
    return first, rows.shape[0] - 1 - last
