"""Empirical Fisher information of the gates: the second-order cost of a channel from first derivatives.

Source: Theis, Korshunova, Tejani and Huszar, "Faster gaze prediction with dense networks and Fisher
pruning", 2018, arXiv 1801.05787, equations 5 to 8; Liu et al., "Group Fisher pruning for practical network
compression", ICML 2021, arXiv 2108.00708, for channels that layers share. Where we differ: no division by
memory or multiply-adds, which is the allocator's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .aggregation import relative
from .criterion import Scene, Scores
from .gates import gate_gradients


@dataclass(frozen=True, kw_only=True)
class Fisher:
    """Score a unit by ``1/2 mean_n (sum z dL_n/dz)^2``, relative to its group's mean.

    The sum goes over the unit's activations ``z`` in all layers that read it before it is squared.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = (((torch.randn(8, 1),), torch.zeros(8, dtype=torch.long)),)
        >>> Fisher()(Scene(model=net, provenance=found, groups=found.groups, labelled=data))["0"].shape
        (2,)
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        slopes = gate_gradients(scene, lambda outputs, targets: scene.loss(outputs, targets).sum())
        return {name: relative(0.5 * np.square(g).mean(0)) for name, g in slopes.items()}
