"""Geometric median: filters close to the middle of their layer can be replaced by the others.

Source: He, Liu, Wang, Hu and Yang, "Filter pruning via geometric median for deep neural networks
acceleration", CVPR 2019, arXiv 1811.00250, equation 7. Where we differ: channels that several layers write
are scored by all of them together, each layer's sums divided by their mean; nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gracile.surgery.reference import tensors_of

from .aggregation import Aggregated, aggregate, relative
from .criterion import Scene, Scores, rows_written


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(Aggregated):
    """Score a unit by ``sum_v ||w_u - w_v||`` over the units of its layer, relative to the layer's mean.

    Args:
        aggregation: How layers that write the same channels (around a residual sum) are put together.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[0.0], [1.0], [3.0]]))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> scene = Scene(model=net, provenance=found, groups=found.groups)
        >>> GeometricMedian()(scene)["0"].tolist()
        [1.0, 0.75, 1.25]
    """

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit."""
        held = tensors_of(scene.model)
        found: Scores = {}
        for group in scene.groups:
            rows = [rows_written(slot, held) for slot in group.scored]
            sums = [relative(torch.cdist(x, x).sum(1).numpy()) for x in rows]
            found[group.name] = aggregate(np.stack(sums), self.aggregation)
        return found
