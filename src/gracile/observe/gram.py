"""Second moments of what goes into a layer, summed over batches: all that a least-squares fit needs.

With inputs ``X`` (one row a position, one column an input channel and kernel tap, a last column of ones) and
targets ``Y``, the fit ``min ||X W - Y||^2`` depends on the data through ``X'X``, ``X'Y`` and ``Y'Y`` alone.
These are summed in float64, so memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from gracile.errors import NonFiniteError


def patches(
    x: Tensor,
    kernel: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    at: Tensor | None = None,
) -> Tensor:
    """Lay out the inputs of a convolution as rows of a matrix.

    Args:
        x: Input ``(batch, channels, *space)``; zeros are padded on both sides.
        kernel: Size of the kernel along each axis of space.
        stride: Steps along each axis.
        padding: Zeros on each side along each axis.
        dilation: Distance of neighbouring taps along each axis.
        at: Output positions of each image to lay out, as flat indices; default, all.

    Returns:
        ``(positions, channels * taps)``: positions in the order (batch, *space), columns channel by channel,
        so that ``patches(x) @ weight.flatten(1).T`` is the convolution.

    Example:
        >>> x, w = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
        >>> rows = patches(x, (3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1))
        >>> wanted = torch.nn.functional.conv2d(x, w, stride=2, padding=1)
        >>> torch.allclose(rows @ w.flatten(1).T, rows_of(wanted), atol=1e-5)
        True
    """
    ends = [side for p in reversed(padding) for side in (p, p)]
    padded = torch.nn.functional.pad(x, ends) if any(ends) else x
    size = output_size(x.shape[2:], kernel, stride=stride, padding=padding, dilation=dilation)
    if at is not None:
        return _gathered(padded, torch.unravel_index(at.to(x.device), size), kernel, stride, dilation)
    taps = []
    for tap in product(*(range(k) for k in kernel)):
        window = [
            slice(t * d, t * d + s * (n - 1) + 1, s)
            for t, d, s, n in zip(tap, dilation, stride, size, strict=True)
        ]
        taps.append(padded[(slice(None), slice(None), *window)].flatten(2))
    return _laid_out(torch.stack(taps, dim=2))


def _gathered(
    padded: Tensor,
    places: Sequence[Tensor],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Rows of single places, without looking at the others."""
    taps = torch.zeros(1, 1, dtype=torch.long, device=padded.device)  # (taps, positions), flat indices
    for place, k, s, d, length in zip(places, kernel, stride, dilation, padded.shape[2:], strict=True):
        reach = torch.arange(k, device=padded.device)[:, None] * d + place * s  # (k, positions)
        taps = (taps[:, None] * length + reach[None]).flatten(0, 1)
    found = padded.flatten(2).index_select(2, taps.flatten())
    return _laid_out(found.reshape(*found.shape[:2], *taps.shape))


def _laid_out(x: Tensor) -> Tensor:
    """``(batch, channels, taps, positions)`` as rows."""
    return x.movedim(3, 1).reshape(-1, x.shape[1] * x.shape[2])


def output_size(
    space: Sequence[int],
    kernel: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """Positions of a convolution's output along each axis of space.

    Example:
        >>> output_size((7, 7), (3, 3), stride=(2, 2), padding=(0, 1), dilation=(1, 1))
        (3, 4)
    """
    each = zip(space, kernel, stride, padding, dilation, strict=True)
    return tuple((length + 2 * p - d * (k - 1) - 1) // s + 1 for length, k, s, p, d in each)


def _chosen(x: Tensor, at: Tensor | None) -> Tensor:
    flat = x.flatten(2)
    return flat if at is None else flat[:, :, at.to(x.device)]


def rows_of(x: Tensor, at: Tensor | None = None) -> Tensor:
    """Rows of a convolution's output: ``(batch, channels, *space)`` to ``(positions, channels)``.

    Args:
        x: Output of a convolution.
        at: Positions of each image to take, as flat indices; default, all.

    Example:
        >>> rows_of(torch.zeros(2, 3, 4, 5)).shape
        torch.Size([40, 3])
    """
    return _chosen(x, at).movedim(1, -1).reshape(-1, x.shape[1])


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: sums of squares leave the range of half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _with_ones(rows: Tensor) -> Tensor:
    """With a last column of ones."""
    return torch.nn.functional.pad(_wide(rows), (0, 1), value=1.0)


class Gram:
    """Second moments of inputs and targets, accumulated by :meth:`update`.

    Args:
        name: The layer, for errors.
        columns: Input columns, without the column of ones.
        targets: Target columns.

    Example:
        >>> seen = Gram("fc", columns=1, targets=1)
        >>> seen.update(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]]))
        >>> seen.xx.tolist(), seen.xy.tolist(), seen.rows
        ([[10.0, 4.0], [4.0, 2.0]], [[14.0], [6.0]], 2)
    """

    def __init__(self, name: str, columns: int, targets: int) -> None:
        self.name, self.rows = name, 0
        self.xx = torch.zeros(columns + 1, columns + 1, dtype=torch.float64)
        self.xy = torch.zeros(columns + 1, targets, dtype=torch.float64)
        self.yy = torch.zeros(targets, dtype=torch.float64)

    def update(self, inputs: Tensor, targets: Tensor) -> None:
        """Add rows of inputs ``(rows, columns)`` and of targets ``(rows, targets)``.

        Raises:
            NonFiniteError: The rows hold NaN or infinity; nothing has been added.
        """
        x, targets = _with_ones(inputs), _wide(targets)
        xx, xy = x.T @ x, x.T @ targets
        self.add(xx.double().cpu(), xy.double().cpu(), targets.double().square().sum(0).cpu(), len(inputs))

    def add(self, xx: Tensor, xy: Tensor, yy: Tensor, rows: int) -> None:
        """Add second moments, with the column of ones, of so many rows.

        Raises:
            NonFiniteError: They hold NaN or infinity; nothing has been added.
        """
        if not bool(xx.isfinite().all() and xy.isfinite().all()):
            raise NonFiniteError(
                self.name,
                wanted="finite activations on the calibration data",
                found="NaN or infinity",
                do="Check the weights and the normalisation of the calibration data.",
            )
        self.xx += xx
        self.xy += xy
        self.yy += yy
        self.rows += rows


class GroupedGram:
    """Second moments of a layer in groups, each of its own inputs and targets.

    Args:
        name: The layer, for errors.
        groups: How many; inputs and targets are laid out group by group.
        columns: Input columns of one group, without the column of ones.
        targets: Target columns of one group.

    Example:
        >>> seen = GroupedGram("depthwise", groups=2, columns=1, targets=1)
        >>> seen.update(torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 3.0]]))
        >>> [part.xy[0].tolist() for part in seen.split()]
        [[2.0], [15.0]]
    """

    def __init__(self, name: str, groups: int, columns: int, targets: int) -> None:
        self.parts = [Gram(name, columns, targets) for _ in range(groups)]
        self.columns = columns

    def update(self, inputs: Tensor, targets: Tensor) -> None:
        """Add rows of inputs ``(rows, groups * columns)`` and of targets ``(rows, groups * targets)``.

        Raises:
            NonFiniteError: The rows hold NaN or infinity.
        """
        if len(self.parts) == 1:
            self.parts[0].update(inputs, targets)
            return
        groups = len(self.parts)
        x = _with_ones(inputs.reshape(len(inputs), groups, self.columns)).transpose(0, 1)
        y = _wide(targets).reshape(len(targets), groups, -1).transpose(0, 1)  # x: (groups, rows, columns + 1)
        xx, xy = (x.mT @ x).double().cpu(), (x.mT @ y).double().cpu()
        yy = y.double().square().sum(1).cpu()
        for i, part in enumerate(self.parts):
            part.add(xx[i], xy[i], yy[i], int(inputs.shape[0]))

    def split(self) -> tuple[Gram, ...]:
        """The moments of each group."""
        return tuple(self.parts)
