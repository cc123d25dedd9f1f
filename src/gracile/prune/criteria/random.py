"""Random scores: the baseline that every criterion has to beat.

Source: Mittal, Bhardwaj, Khapra and Ravindran, "Recovering from random pruning: on the plasticity of deep
convolutional neural networks", WACV 2018, arXiv 1801.10447.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .criterion import Scene, Scores


@dataclass(frozen=True, kw_only=True)
class Random:
    """Score units by uniform random numbers; the seed is that of the plan.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> scene = Scene(model=net, provenance=found, groups=found.groups, seed=1)
        >>> Random()(scene)["0"].tolist() == Random()(scene)["0"].tolist()
        True
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit."""
        draw = np.random.default_rng(scene.seed)
        return {g.name: draw.random(g.units) for g in scene.groups}
