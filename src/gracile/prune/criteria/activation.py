"""Mean activation: channels that the next layers hardly hear matter little.

Source: Polyak and Wolf, "Channel-level acceleration of deep face representations", IEEE Access 3 (2015);
Molchanov et al., ICLR 2017, arXiv 1611.06440, section 2.2 (activation criteria). Where we differ: activations
are taken where they are read, behind activation functions and pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from .aggregation import Aggregated, aggregate, relative
from .criterion import Scene, Scores
from .gates import activation_means


@dataclass(frozen=True, kw_only=True)
class Activation(Aggregated):
    """Score a unit by the mean of ``|z|`` over images and positions, relative to the place's mean.

    Args:
        aggregation: How places that read the same channels are put together.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = net[0].weight.data.fill_(0.0), net[0].bias.data.copy_(torch.tensor([1.0, 3.0]))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = ((torch.randn(8, 1),),)
        >>> scene = Scene(model=net, provenance=found, groups=found.groups, calibration=data)
        >>> Activation()(scene)["0"].tolist()
        [0.5, 1.5]
    """

    needs_data: ClassVar[bool] = True

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        found = activation_means(scene, torch.abs)
        return {
            name: aggregate(np.stack([relative(row) for row in rows]), self.aggregation)
            for name, rows in found.items()
        }
