"""SInGE: the gradient integrated along the weights' way to zero.

Source: Yvinec, Dapogny, Cord and Bailly, "SInGE: sparsity via integrated gradients estimation of neuron
relevance", NeurIPS 2022, arXiv 2207.04089, section 3 (relevance of a neuron as the integral of the gradient's
variation on the path towards its removal). Where we differ: the integral goes all the way to zero by the
midpoint rule (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017, arXiv
1703.01365, equation 3), and random parts of all units of the model walk together, so that the cost does not
grow with depth while most of the other units stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.graph import Group
from gracile.surgery.reference import tensors_of

from .aggregation import relative
from .criterion import Scene, Scores, rows_written
from .gates import examples_of
from .slopes import aliases, weight_gradients


@dataclass(frozen=True, kw_only=True)
class SInGE:
    """Score a unit by ``|integral over t from 0 to 1 of <w, dL/dw(t w)>|``, relative to its group's mean.

    ``w`` are the weights that write the unit. The integral is the change of the loss when the unit's weights
    shrink to zero and the constant that it then emits is kept, as :func:`~gracile.prune.apply` does.

    Args:
        steps: Points of the path, at least 1.
        parts: The units are dealt at random into so many parts that walk one after another, at least 1.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = (((torch.randn(8, 1),), torch.zeros(8, dtype=torch.long)),)
        >>> SInGE()(Scene(model=net, provenance=found, groups=found.groups, labelled=data))["0"].shape
        (2,)
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    steps: int = 4
    parts: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "parts"):
            if getattr(self, name) < 1:
                raise BadArgument(name, wanted="at least 1", found=f"{name}={getattr(self, name)}")

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        changes = {g.name: np.zeros(g.units) for g in scene.groups}
        draw = np.random.default_rng(scene.seed)
        part_of = {g.name: draw.permutation(g.units) % self.parts for g in scene.groups}
        examples = examples_of(scene)
        for part in range(self.parts):
            walking = {name: parts == part for name, parts in part_of.items()}
            for step in range(self.steps):
                factors = _factors(scene, walking, (step + 0.5) / self.steps)
                for example in examples:
                    slopes = weight_gradients(scene, example, factors)
                    for group in scene.groups:
                        chosen = walking[group.name]
                        changes[group.name][chosen] += _along(scene, group, slopes)[chosen]
        return {name: relative(np.abs(change)) for name, change in changes.items()}


def _factors(scene: Scene, walking: Mapping[str, np.ndarray], t: float) -> dict[str, Tensor]:
    """What the parameters are multiplied by: ``t`` for weights that write units of this part."""
    held, first = tensors_of(scene.model), aliases(scene.model)
    found: dict[str, Tensor] = {}
    for group in scene.groups:
        for slot in group.scored:
            factor = found.setdefault(first[slot.param], torch.ones_like(held[slot.param]))
            at = torch.from_numpy(slot.index[walking[group.name]].reshape(-1))
            factor.index_fill_(slot.axis, at.to(factor.device), t)
    return found


def _along(scene: Scene, group: Group, slopes: Mapping[str, Tensor]) -> np.ndarray:
    """``<w, dL/dw>`` of each unit, over all weights that write it."""
    held = tensors_of(scene.model)
    products = [(rows_written(s, held) * rows_written(s, slopes)).sum(1).numpy() for s in group.scored]
    return np.asarray(np.sum(products, axis=0))
