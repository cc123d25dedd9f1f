"""Cross-layer equalization: what one layer's channel has too much of range, the next layer's has too little.

Source: Nagel, van Baalen, Blankevoort and Welling, "Data-free quantization through weight equalization and
bias correction", ICCV 2019, arXiv 1906.04721, section 4.1, equations 5 to 12. With ``r1_i`` the largest
absolute weight that writes channel ``i`` and ``r2_i`` the largest that reads it, ``s_i = sqrt(r1_i / r2_i)``
(their equation 11, ``s_i = sqrt(r1_i r2_i) / r2_i``) makes both equal; all pairs are gone through until
nothing changes. A depthwise convolution is read and written channel by channel, so it takes part in two
pairs.

The network stays the same function, up to rounding in float. Where we differ: ReLU6 is not replaced by ReLU,
pairs with it between are left alone; several layers may read the same channels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument
from gracile.records import ChannelScaling, EqualizePlan

from ..lower import lower
from ..pairs import Pair, find_pairs, per_input, scale_, weight_of
from .work import Work

_ENOUGH = 1e-3  # largest relative change of a scale that still counts as one
_MOST = 1e4  # scales lie within 1 / _MOST .. _MOST


@dataclass(frozen=True, kw_only=True)
class Equalize:
    """Make the ranges of channels equal across layers.

    Args:
        rounds: Most times that all pairs are gone through, at least 1.
    """

    rounds: int = 20
    exact = True

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadArgument("rounds", wanted="at least 1", found=f"{self.rounds=}")

    def apply(self, work: Work) -> None:
        """Scale ``work`` and record the scales and the layers that are in no pair."""
        pairs = find_pairs(work.units())
        work.skipped.extend(pairs.skipped)
        scratch = copy.deepcopy(work.graph)
        total = {pair.first.name: torch.ones_like(ranges(scratch, pair)[0]) for pair in pairs.found}
        for _ in range(self.rounds):
            largest = 0.0
            for pair in pairs.found:
                scale = pair_scale(*ranges(scratch, pair))
                scale_(scratch, scaling(pair, scale))
                total[pair.first.name] *= scale
                largest = max(largest, float((scale - 1).abs().max()))
            if largest < _ENOUGH:
                break
        for pair in pairs.found:
            work.scale(scaling(pair, total[pair.first.name]), pair.first.node)


def equalize(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, EqualizePlan]:
    """Equalize a trained model across layers; the outputs stay the same.

    Fold normalisations first: a norm between two layers keeps them from being a pair.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was.
        inputs: Example inputs, any batch size.

    Returns:
        A copy of the model with scaled weights, and what was scaled, as plain data.

    Raises:
        CaptureError: ``torch.export`` refuses the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU6())
        >>> x = torch.randn(2, 3, 5, 5)
        >>> same, plan = equalize(net, (x,))
        >>> torch.allclose(same(x), net(x), atol=1e-5), [(s.first, s.readers) for s in plan.scaled]
        (True, [('0', ('2',))])
        >>> plan.skipped[0].where, plan.skipped[0].why.partition(",")[0]
        ('2', 'its output goes through hardtanh')
    """
    graph = lower(model, inputs)
    work = Work(graph=graph, inputs=inputs)
    Equalize().apply(work)
    equal = copy.deepcopy(model)
    for part in work.prepared.scaled:
        scale_(equal, part)
    return equal, EqualizePlan(scaled=work.prepared.scaled, skipped=tuple(work.skipped))


def ranges(module: fx.GraphModule, pair: Pair) -> tuple[Tensor, Tensor]:
    """``r1`` and ``r2``: the largest absolute weight that writes, and that reads, each channel."""
    first = weight_of(module, pair.first).abs().flatten(1).amax(1).double()
    read = [per_input(weight_of(module, reader), len(first)) for reader in pair.readers]
    return first, torch.stack(read).amax(0).double()


def pair_scale(writes: Tensor, reads: Tensor) -> Tensor:
    """``sqrt(r1 / r2)``, 1 where a channel is not written or not read.

    Example:
        >>> pair_scale(torch.tensor([8.0, 1.0, 0.0]), torch.tensor([2.0, 1.0, 3.0])).tolist()
        [2.0, 1.0, 1.0]
    """
    alive = (writes > 0) & (reads > 0)
    scale = (torch.where(alive, writes, 1.0) / torch.where(alive, reads, 1.0)).sqrt()
    return scale.clamp(1 / _MOST, _MOST)


def scaling(pair: Pair, scale: Tensor) -> ChannelScaling:
    """The record of a pair's scale."""
    return ChannelScaling(
        first=pair.first.name,
        readers=tuple(reader.name for reader in pair.readers),
        scale=tuple(scale.tolist()),
    )
