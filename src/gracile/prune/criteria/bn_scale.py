"""Batch-norm scale: a channel that its batch norm multiplies by little matters little.

Source: Liu, Li, Shen, Huang, Yan and Zhang, "Learning efficient convolutional networks through network
slimming", ICCV 2017, arXiv 1708.06519, section 3. Where we differ: no training with an L1 penalty on the
scales is part of it, and scales are divided by their layer's mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.graph import Captured, Group
from gracile.graph.rules import bound, packet
from gracile.surgery.reference import tensors_of

from .aggregation import Aggregated, aggregate, relative
from .criterion import Scene, Scores, norms


@dataclass(frozen=True, kw_only=True)
class BNScale(Aggregated):
    """Score a unit by ``|gamma|`` of the batch norms over it, relative to each batch norm's mean.

    Groups without a batch norm are scored by the L2 norm of the weights that write them, relative to the
    layer's mean, so that they can be compared. A model in which no group has one is refused.

    Args:
        aggregation: How batch norms over the same channels (around a residual sum) are put together.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
        >>> _ = net[1].weight.data.copy_(torch.tensor([1.0, -3.0]))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> BNScale()(Scene(model=net, provenance=found, groups=found.groups))["0"].tolist()
        [0.5, 1.5]
    """

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: No group has a batch norm with a scale.
        """
        held = tensors_of(scene.model)
        gammas = batch_norm_weights(scene.provenance.captured)
        found = {g.name: _scales(g, gammas, held) for g in scene.groups}
        if scene.groups and not any(len(rows) for rows in found.values()):
            raise BadArgument(
                "criterion",
                wanted="a batch norm with a scale in at least one group, for the criterion `bn_scale`",
                found=f"none in {len(scene.groups)} groups that may shrink",
                do="Choose another criterion, such as l2 or reconstruction.",
            )
        return {
            g.name: aggregate(found[g.name] if len(found[g.name]) else norms(g, held, 2), self.aggregation)
            for g in scene.groups
        }


def batch_norm_weights(captured: Captured) -> set[str]:
    """Names of the parameters that batch norms multiply by."""
    norms_ = [n for n in captured.graph.nodes if n.op == "call_function" and "batch_norm" in packet(n)]
    nodes = [bound(n)["weight"] for n in norms_]
    return {name for node in nodes if node is not None and (name := captured.param_of(node)) is not None}


def _scales(group: Group, gammas: set[str], held: Mapping[str, Tensor]) -> np.ndarray:
    """``|gamma|`` of every batch norm over the group, relative to its mean ``(norms, units)``."""
    rows = []
    for slot in group.slots:
        if slot.param in gammas:
            scale = held[slot.param].detach().double().cpu().abs()
            rows.append(relative(scale[torch.from_numpy(slot.index)].mean(1).numpy()))
    return np.stack(rows) if rows else np.zeros((0, group.units))
