"""L2 norm: channels that weights of small energy write matter little.

Source: He, Kang, Dong, Fu and Yang, "Soft filter pruning for accelerating deep convolutional neural
networks", IJCAI 2018, arXiv 1808.06866, section 3.2. Where we differ: channels that several layers write are
scored by all of them together, each layer's norms divided by their mean; nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from .aggregation import Aggregated
from .criterion import Scene, Scores, by_norm


@dataclass(frozen=True, kw_only=True)
class L2(Aggregated):
    """Score a unit by ``sqrt(sum w^2)`` over the weights that write it, relative to its layer's mean.

    Args:
        aggregation: How layers that write the same channels (around a residual sum) are put together.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, -5.0]]))
        >>> found = trace(capture(net, (torch.zeros(1, 2),)))
        >>> L2()(Scene(model=net, provenance=found, groups=found.groups))["0"].tolist()
        [1.0, 1.0]
    """

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit."""
        return by_norm(scene, 2, self.aggregation)
