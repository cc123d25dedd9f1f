"""Similarity: of two channels that nearly the same weights write, one can go.

Source: Yvinec, Dapogny and Bailly, introduction to acceleration methods, 2022, section 3 (pairwise distances
``D_ij = ||w_i - w_j||_p``); Srinivas and Babu, "Data-free parameter pruning for deep neural networks", BMVC
2015, arXiv 1507.06149. Where we differ: channels that several layers write are compared by all these weights
together, each layer's divided by its mean norm, and biases and batch norms count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.graph import Group
from gracile.surgery.reference import tensors_of

from .criterion import Scene, Scores, rows_written
from .nearest import join_nearest, scores_of


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Score a unit by its distance to the nearest one when its turn comes.

    Greedily, of the two nearest units the one of smaller norm goes, and its score is their distance; scores
    never fall along the order of removal. :func:`~gracile.prune.merge` is the way to keep what goes.

    Args:
        p: Order of the distance, at least 1.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 3, bias=False), torch.nn.Linear(3, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [5.0], [5.5]]))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> Similarity()(Scene(model=net, provenance=found, groups=found.groups))["0"].argsort().tolist()
        [1, 0, 2]
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    p: float = 2.0

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise BadArgument("p", wanted="an order of at least 1", found=f"p={self.p}")

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit."""
        held = tensors_of(scene.model)
        return {
            g.name: scores_of(join_nearest(described(g, held), self.p, mean=False), g.units)
            for g in scene.groups
        }


def described(group: Group, held: Mapping[str, Tensor]) -> Tensor:
    """All numbers that make a unit's activations, one row a unit, each tensor relative to its mean norm."""
    parts = []
    for slot in group.slots:
        if slot.role != "read" and held[slot.param].is_floating_point():
            rows = rows_written(slot, held)
            parts.append(rows / torch.linalg.vector_norm(rows, dim=1).mean().clamp_min(1e-30))
    return torch.cat(parts, 1)
