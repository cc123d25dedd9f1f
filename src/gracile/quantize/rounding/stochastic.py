"""Stochastic rounding: up or down by chance, right on average.

Source: Gupta et al., "Deep learning with limited numerical precision", ICML 2015, arXiv 1502.02551, section
3: a value rounds up with the probability of its distance from the integer below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.nn import quantize
from gracile.records import QuantPlan, WeightQuant

from ..lower import fetch
from .moves import pack, spread_grid
from .site import Site


@dataclass(frozen=True, kw_only=True)
class Stochastic:
    """Every weight to one of its two neighbours, ``P(up) = w / s - floor(w / s)``.

    Args:
        seed: Whole number, at least 0; the same seed gives the same integers.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.seed, int) and self.seed >= 0):
            raise BadArgument("seed", wanted="a whole number, at least 0", found=f"{self.seed=}")

    needs_data = False

    def round(self, plan: QuantPlan, site: Site) -> QuantPlan:
        """The plan with weights rounded by chance."""
        random = torch.Generator().manual_seed(self.seed)
        nodes = {layer.name: layer.weight for layer in site.units.layers}
        weights = tuple(
            _round(w, fetch(site.graph, str(nodes[w.layer].target)), random) for w in plan.weights
        )
        return replace(plan, weights=weights)


def round_by_chance(x: Tensor, random: torch.Generator) -> Tensor:
    """Whole numbers whose mean over many draws is ``x``; whole numbers stay.

    Example:
        >>> draws = round_by_chance(torch.full((10_000,), 0.25), torch.Generator().manual_seed(0))
        >>> draws.unique().tolist(), abs(draws.mean().item() - 0.25) < 0.02
        ([0.0, 1.0], True)
    """
    chance = torch.rand(x.shape, generator=random, dtype=x.dtype).to(x.device)
    return torch.floor(x) + (chance < x - torch.floor(x)).to(x.dtype)


def _round(plan: WeightQuant, weight: Tensor, random: torch.Generator) -> WeightQuant:
    weight = weight.detach().float()
    scale, zero = spread_grid(plan, weight)
    drawn = round_by_chance(weight / scale.float(), random) + zero
    near = quantize(weight, scale.float(), zero, plan.qmin, plan.qmax)
    return replace(plan, moved=pack(drawn.clamp(plan.qmin, plan.qmax) - near))
