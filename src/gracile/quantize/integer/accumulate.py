"""Accumulators: the integer products of a convolution or linear layer, in as many bits as a machine has.

Source: Jacob et al., CVPR 2018, arXiv 1712.05877, equations 4 and 7: sums of products of 8-bit integers and
a 32-bit bias. Accumulated are ``(q_w - z_w)(q_x - z_x)``, what is left when the zero points are taken care
of beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from gracile.errors import BadArgument

from ..lower import argument, op_name, per_axis

Overflow = Literal["wrap", "saturate"]


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """How wide sums are, and what happens when one does not fit.

    Args:
        bits: 8 to 32.
        overflow: ``wrap`` keeps the lowest bits, as integer units do; ``saturate`` stops at the end of the
            range at every addition, as signal processors can.

    Raises:
        BadArgument: ``bits`` lies outside 8..32, or ``overflow`` is something else.

    Example:
        >>> Accumulator(bits=8).limits, Accumulator(bits=8).fit(torch.tensor([127, 128, -129])).tolist()
        ((-128, 127), [127, -128, 127])
    """

    bits: int = 32
    overflow: Overflow = "wrap"

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 8 <= self.bits <= 32):
            raise BadArgument("bits", wanted="accumulators of 8 to 32 bits", found=f"{self.bits!r}")
        if self.overflow not in ("wrap", "saturate"):
            raise BadArgument("overflow", wanted="wrap or saturate", found=f"{self.overflow!r}")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    def fit(self, sums: Tensor) -> Tensor:
        """Sums in so many bits: wrapped, or stopped at the ends."""
        low, high = self.limits
        if self.overflow == "saturate":
            return sums.clamp(low, high)
        return (sums - low).remainder(2**self.bits) + low


def products(x: Tensor, weight: Tensor, bias: Tensor | None, node: fx.Node) -> Tensor:
    """What accumulators of unlimited width hold.

    Products are summed in float64, in which every sum of integers below 2^53 is exact, whatever the order.

    Args:
        x: Integers without their zero point, ``(n, c, ...)``.
        weight: Integers without their zero point, ``(out, in, ...)``.
        bias: int32 ``(out,)`` or ``None``.
        node: The call, for stride, padding, dilation and groups.

    Returns:
        int64, shaped as the layer's output.
    """
    assert callable(node.target)
    options = {k: v for k, v in node.kwargs.items() if k not in ("weight", "bias")}
    sums: Tensor = node.target(x.double(), weight.double(), None, *node.args[3:], **options)
    return sums.long() + _column(bias, sums)


def accumulate(
    x: Tensor, weight: Tensor, bias: Tensor | None, node: fx.Node, accumulator: Accumulator
) -> Tensor:
    """What accumulators of a given width hold; arguments as in :func:`products`.

    Wrapping at the end is the same as wrapping at every addition. Saturating is not: it begins with the bias
    and adds inputs in the weight's own order, channel by channel.
    """
    low, high = accumulator.limits
    if accumulator.overflow == "wrap" or bool(_reach(x, weight, bias, node).le(min(-low, high)).all()):
        return accumulator.fit(products(x, weight, bias, node))
    rows, kernels, shape = _columns(x.long(), weight.long(), node)
    sums = _column(bias, rows.new_empty(shape)).expand(shape).reshape(len(rows), *kernels.shape[:2], -1)
    sums = accumulator.fit(sums)
    for k in range(kernels.shape[2]):  # rows (n, groups, inputs, places), kernels (groups, out, inputs)
        sums = accumulator.fit(sums + kernels[:, :, k, None] * rows[:, :, None, k])
    return sums.reshape(shape)


def _reach(x: Tensor, weight: Tensor, bias: Tensor | None, node: fx.Node) -> Tensor:
    """Bound of every partial sum: the products of the absolute values."""
    return products(x.abs(), weight.abs(), None if bias is None else bias.abs(), node)


def _column(bias: Tensor | None, like: Tensor) -> Tensor:
    if bias is None:
        return torch.zeros((), dtype=torch.int64, device=like.device)
    return bias.long().reshape(1, -1, *[1] * (like.dim() - 2))


def _columns(x: Tensor, weight: Tensor, node: fx.Node) -> tuple[Tensor, Tensor, list[int]]:
    """Inputs of every output ``(n, groups, inputs, places)``, kernels, and the output's shape."""
    if op_name(node) == "linear":
        return x.reshape(len(x), 1, -1, 1), weight[None], [len(x), len(weight)]
    axes = weight.dim() - 2
    stride, padding, dilation = (per_axis(node, name, axes) for name in ("stride", "padding", "dilation"))
    x = F.pad(x, [p for size in reversed(padding) for p in (size, size)])
    for axis in range(axes):
        reach = dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        x = x.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    places = list(x.shape[2 : 2 + axes])
    groups = int(argument(node, "groups"))
    rows = x.movedim(tuple(range(2, 2 + axes)), tuple(range(-axes, 0)))  # (n, c, kernel..., places...)
    rows = rows.reshape(len(x), groups, weight[0].numel(), -1)
    return rows, weight.reshape(groups, -1, weight[0].numel()), [len(x), len(weight), *places]
