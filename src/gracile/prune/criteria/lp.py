"""Lp norm: between counting weights (p small) and looking at the largest one only (p large).

Source: Yvinec, Dapogny and Bailly, introduction to acceleration methods, 2022, section 3 (``I_m =
||W_m||_p``); Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, arXiv 1608.08710, for p = 1.
Where we differ: any order above 0, and channels that several layers write are scored by all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass

from gracile.errors import BadArgument

from .aggregation import Aggregated
from .criterion import Scene, Scores, by_norm


@dataclass(frozen=True, kw_only=True)
class Lp(Aggregated):
    """Score a unit by ``(sum |w|^p)^(1/p)`` over the weights that write it, relative to its layer's mean.

    Args:
        p: Order, above 0; infinity for the largest weight.
        aggregation: How layers that write the same channels (around a residual sum) are put together.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
        >>> found = trace(capture(net, (torch.zeros(1, 2),)))
        >>> Lp(p=float("inf"))(Scene(model=net, provenance=found, groups=found.groups))["0"].tolist()
        [0.5, 1.5]
    """

    p: float = 3.0

    def __post_init__(self) -> None:
        if not self.p > 0:
            raise BadArgument("p", wanted="an order above 0", found=f"p={self.p}")
        super().__post_init__()

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit."""
        return by_norm(scene, self.p, self.aggregation)
