"""L1 norm: channels that small weights write matter little.

Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", ICLR 2017, arXiv
1608.08710, section 3.1. Where we differ: channels that several layers write are scored by all of them
together, each layer's norms divided by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from .aggregation import Aggregated
from .criterion import Scene, Scores, by_norm


@dataclass(frozen=True, kw_only=True)
class L1(Aggregated):
    """Score a unit by ``sum |w|`` over the weights that write it, relative to its layer's mean.

    Args:
        aggregation: How layers that write the same channels (around a residual sum) are put together. The
            mean, because one layer with a large weight does not make the others' share of the channel large.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-3.0]]))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> L1()(Scene(model=net, provenance=found, groups=found.groups))["0"].tolist()
        [0.5, 1.5]
    """

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit."""
        return by_norm(scene, 1, self.aggregation)
