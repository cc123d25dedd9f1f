"""What a criterion is: it looks at a model's groups and scores every unit; higher = keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.graph import Group, Provenance

from .layers import tensors
from .walk import Batch

Scores = dict[str, np.ndarray]
"""Per group name, one score a unit ``(units,)``, float64."""
Aggregation = Literal["mean", "max", "sum"]
AGGREGATIONS = ("mean", "max", "sum")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a criterion may look at: model, traced graph, groups to score, unlabelled data, a seed."""

    model: nn.Module
    provenance: Provenance
    groups: tuple[Group, ...]
    calibration: tuple[Batch, ...] = ()
    seed: int = 0


@runtime_checkable
class Criterion(Protocol):
    """Scores units.

    ``marginal`` says that a score is the cost of removing the unit, comparable between groups:
    budgets then go by score per multiply-add (or parameter) instead of equal shares.
    """

    @property
    def marginal(self) -> bool: ...

    @property
    def needs_data(self) -> bool: ...

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit of every group in ``scene.groups``."""
        ...


def check_finite(model: nn.Module) -> None:
    """Refuse weights that are not numbers.

    Raises:
        NonFiniteError: A parameter or buffer holds NaN or infinity.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> _ = net.weight.data.fill_(float("nan"))
        >>> check_finite(net)
        Traceback (most recent call last):
        ...
        gracile.errors.NonFiniteError: weight: wanted finite numbers, found 1 of 1 NaN or infinite. Load \
other weights.
    """
    for name, tensor in tensors(model).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                name,
                wanted="finite numbers",
                found=f"{bad} of {tensor.numel()} NaN or infinite",
                do="Load other weights.",
            )


def by_norm(scene: Scene, order: int, aggregation: Aggregation) -> Scores:
    """Score units by the norm of the weights that write them.

    In each weight that writes the group, a unit's norm is divided by the layer's mean, so that layers of
    different scale count alike; then the layers are aggregated.

    Args:
        scene: The model and its groups.
        order: 1 or 2.
        aggregation: Over the layers that write one group.
    """
    held = tensors(scene.model)
    return {g.name: _aggregate(_norms(g, held, order), aggregation) for g in scene.groups}


def _norms(group: Group, held: Mapping[str, Tensor], order: int) -> np.ndarray:
    """Normalised norms ``(writers, units)``."""
    rows = []
    for slot in group.scored:
        weight = held[slot.param].detach().double().cpu().movedim(slot.axis, 0).flatten(1)
        taken = weight[torch.from_numpy(slot.index)].flatten(1)  # (units, k * rest)
        norm = torch.linalg.vector_norm(taken, ord=order, dim=1).numpy()
        rows.append(norm / max(float(norm.mean()), 1e-30))
    return np.stack(rows)


def _aggregate(rows: np.ndarray, aggregation: Aggregation) -> np.ndarray:
    if aggregation == "mean":
        return np.asarray(rows.mean(axis=0))
    return np.asarray(rows.max(axis=0) if aggregation == "max" else rows.sum(axis=0))


def check_aggregation(aggregation: str) -> None:
    """Refuse an aggregation that is not known."""
    if aggregation not in AGGREGATIONS:
        raise BadArgument("aggregation", wanted=f"one of {', '.join(AGGREGATIONS)}", found=repr(aggregation))
