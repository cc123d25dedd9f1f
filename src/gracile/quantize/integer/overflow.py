"""How wide accumulators must be: what data shows, and what the weights could ever reach.

Source: the bound is the largest sum that the weights allow, over all inputs on the grid (as in Colbert et
al., "A2Q: accumulator-aware quantization with guaranteed overflow avoidance", ICCV 2023, arXiv 2308.13504,
there by the l1 norm; here per sign, so that it is reached).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from gracile.nn import ActivationQuantizer, QuantizedModel
from gracile.observe import Calibration
from gracile.records import LayerAccumulator, OverflowReport

from ..calibration import float32_batches
from .accumulate import Accumulator, products
from .forward import Integers, Stored

WIDTHS = (16, 20, 24)


def overflow_report(
    quantized: QuantizedModel, batches: Calibration, bits: Sequence[int] = WIDTHS
) -> OverflowReport:
    """The largest accumulators of every layer, and how many sums narrower ones would not hold.

    Args:
        quantized: From :func:`gracile.quantize.ptq`.
        batches: Inputs to look at.
        bits: Widths to judge, 8 to 32.

    Returns:
        For each layer the sums seen, the bound that no input exceeds (of partial sums too, whatever their
        order), the bits that hold each, and for each width in ``bits`` the share of sums beyond it.

    Raises:
        BadArgument: ``batches`` is empty, or a width lies outside 8..32.

    Example:
        >>> from torch import nn
        >>> from gracile.quantize import ptq
        >>> images = torch.randn(8, 3, 8, 8)
        >>> quantized = ptq(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (images[:1],), [images])
        >>> layer = overflow_report(quantized, [images]).layers[0]
        >>> layer.products, layer.seen_bits <= layer.worst_bits <= 8 + 8 + 5
        (27, True)
    """
    widths = [Accumulator(bits=b) for b in bits]
    runner = _Watch(quantized.network, widths)
    images = 0
    with torch.no_grad():
        for inputs in float32_batches(batches, quantized, quantized.input_count, argument="batches"):
            runner.run(*inputs)
            images += len(inputs[0])
    layers = tuple(
        LayerAccumulator(
            layer=layer,
            products=seen.products,
            seen=(seen.low, seen.high),
            worst=seen.worst,
            seen_bits=bits_for(seen.low, seen.high),
            worst_bits=bits_for(*seen.worst),
            beyond=tuple(
                (w.bits, beyond / seen.count) for w, beyond in zip(widths, seen.beyond, strict=True)
            ),
        )
        for layer, seen in runner.seen.items()
    )
    return OverflowReport(images=images, layers=layers)


def bits_for(low: int, high: int) -> int:
    """Fewest bits of a signed integer that holds ``low..high``.

    Example:
        >>> bits_for(-128, 127), bits_for(0, 128), bits_for(0, 0), bits_for(-1, -1)
        (8, 9, 1, 1)
    """
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length() if low < 0 else 0)


def worst_sums(weight: Tensor, bias: Tensor | None, low: int, high: int) -> tuple[int, int]:
    """The smallest and the largest sum for inputs in ``low..high``, which holds zero.

    Args:
        weight: Integers ``(out, ...)``.
        bias: Integers ``(out,)`` or ``None``.
        low: Smallest input, at most 0.
        high: Largest input, at least 0.

    Example:
        >>> worst_sums(torch.tensor([[3, -2]]), torch.tensor([1]), 0, 10)
        (-19, 31)
    """
    rows = weight.long().flatten(1)
    offset = rows.new_zeros(len(rows)) if bias is None else bias.long()
    up = torch.maximum(rows * high, rows * low).sum(1)
    down = torch.minimum(rows * high, rows * low).sum(1)
    least, most = (offset + down).min(), (offset + up).max()
    return min(int(least), 0), max(int(most), 0)  # a partial sum may be the start itself


@dataclass
class _Seen:
    products: int
    worst: tuple[int, int]
    beyond: list[int]
    low: int = 0
    high: int = 0
    count: int = field(default=0)


class _Watch(Integers):
    """Runs with unlimited accumulators and looks at them."""

    def __init__(self, module: fx.GraphModule, widths: list[Accumulator]) -> None:
        super().__init__(module, Accumulator())
        self.widths = widths
        self.seen: dict[str, _Seen] = {}
        grids = [m for m in module.modules() if isinstance(m, ActivationQuantizer)]
        self.ranges = {
            (float(m.scale), int(m.zero_point)): (m.qmin - int(m.zero_point), m.qmax - int(m.zero_point))
            for m in grids
        }

    def sums(self, n: fx.Node, x: Stored, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
        """Accumulators of one call, which are noted."""
        found = products(x.centred, weight, bias, n)
        low, high = self.ranges[x.scale, x.zero_point]
        start = _Seen(weight[0].numel(), worst_sums(weight, bias, low, high), [0] * len(self.widths))
        seen = self.seen.setdefault(layer, start)
        seen.low, seen.high = min(seen.low, int(found.min())), max(seen.high, int(found.max()))
        seen.count += found.numel()
        for place, width in enumerate(self.widths):
            least, most = width.limits
            seen.beyond[place] += int(((found < least) | (found > most)).sum())
        return self.accumulator.fit(found)
