"""APoZ, the average percentage of zeros: channels that a ReLU mostly switches off matter little.

Source: Hu, Peng, Tai and Tang, "Network trimming: a data-driven neuron pruning approach towards efficient
deep architectures", 2016, arXiv 1607.03250, equation 1. Where we differ: the score is the share that is not
zero (higher = keep), taken where the channels are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .aggregation import Aggregated, aggregate
from .criterion import Scene, Scores
from .gates import activation_means

_TIE = 1e-6


@dataclass(frozen=True, kw_only=True)
class APoZ(Aggregated):
    """Score a unit by ``1 - APoZ``, the share of images and positions where it is not zero.

    It says nothing about channels whose activation function gives no zeros: they all score 1. Channels that
    differ in nothing else go by their mean activation, which counts for at most a millionth.

    Args:
        aggregation: How places that read the same channels are put together.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = net[0].weight.data.fill_(0.0), net[0].bias.data.copy_(torch.tensor([1.0, -3.0]))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = ((torch.randn(8, 1),),)
        >>> scene = Scene(model=net, provenance=found, groups=found.groups, calibration=data)
        >>> APoZ()(scene)["0"].round(3).tolist()
        [1.0, 0.0]
    """

    needs_data: ClassVar[bool] = True

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        alive = activation_means(scene, lambda z: z.ne(0).double())
        level = activation_means(scene, torch.abs)
        return {
            name: aggregate(rows + _TIE * level[name] / (1 + level[name]), self.aggregation)
            for name, rows in alive.items()
        }
