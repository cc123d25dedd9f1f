"""What a criterion is: it looks at a model's groups and scores every unit; higher = keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gracile.errors import NonFiniteError
from gracile.graph import Group, Provenance, Slot
from gracile.observe import Batch
from gracile.surgery.reference import tensors_of

from .aggregation import Aggregation as Aggregation
from .aggregation import aggregate, relative
from .examples import Example, Loss, cross_entropy

Scores = dict[str, np.ndarray]
"""Per group name, one score a unit ``(units,)``, float64."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a criterion may look at: model, traced graph, groups to score, data, a loss, a seed.

    ``labelled`` are batches with their targets; where there are none, criteria that differentiate a loss
    take ``calibration`` with the classes that the model itself predicts. ``loss`` gives one number an
    example; everything in one call is of one batch size. ``choice`` holds the attribute choices that trying
    removals found, see :func:`gracile.surgery.probe`.
    """

    model: nn.Module
    provenance: Provenance
    groups: tuple[Group, ...]
    calibration: tuple[Batch, ...] = ()
    labelled: tuple[Example, ...] = ()
    loss: Loss = cross_entropy
    seed: int = 0
    choice: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Criterion(Protocol):
    """Scores units.

    ``marginal`` says that a score is the cost of removing the unit, comparable between groups:
    budgets then go by score per multiply-add (or parameter) instead of equal shares. ``needs_data`` says that
    it looks at inputs, ``needs_labels`` that labels make it better.
    """

    @property
    def marginal(self) -> bool: ...

    @property
    def needs_data(self) -> bool: ...

    @property
    def needs_labels(self) -> bool: ...

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit of every group in ``scene.groups``."""
        ...


def check_finite(model: nn.Module) -> None:
    """Refuse weights that are not numbers.

    Buffers other than running statistics may hold infinity, as masks of attention do.

    Raises:
        NonFiniteError: A parameter or a running statistic holds NaN or infinity, or a buffer NaN.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> _ = net.weight.data.fill_(float("nan"))
        >>> check_finite(net)
        Traceback (most recent call last):
        ...
        gracile.errors.NonFiniteError: weight: wanted finite numbers, found 1 of 1 NaN or infinite. Load \
other weights.
    """
    for name, tensor in tensors_of(model).items():
        free = not isinstance(tensor, nn.Parameter) and not name.endswith(("running_mean", "running_var"))
        bad = int((tensor.isnan() if free else ~tensor.isfinite()).sum())
        if bad:
            raise NonFiniteError(
                name,
                wanted="numbers" if free else "finite numbers",
                found=f"{bad} of {tensor.numel()} NaN{'' if free else ' or infinite'}",
                do="Load other weights.",
            )


def rows_written(slot: Slot, held: Mapping[str, Tensor]) -> Tensor:
    """What a slot holds of each unit, one row a unit ``(units, numbers)``, float64."""
    tensor = held[slot.param].detach().double().cpu().movedim(slot.axis, 0)
    tensor = tensor.reshape(len(tensor), -1)
    return tensor[torch.from_numpy(slot.index)].flatten(1)


def by_norm(scene: Scene, order: float, aggregation: Aggregation) -> Scores:
    """Score units by the norm of the weights that write them.

    In each weight that writes the group, a unit's norm is divided by the layer's mean, so that layers of
    different scale count alike; then the layers are aggregated.

    Args:
        scene: The model and its groups.
        order: Of the norm, above 0.
        aggregation: Over the layers that write one group.
    """
    held = tensors_of(scene.model)
    return {g.name: aggregate(norms(g, held, order), aggregation) for g in scene.groups}


def norms(group: Group, held: Mapping[str, Tensor], order: float) -> np.ndarray:
    """Norms of the weights that write the units, relative to each layer's mean ``(writers, units)``."""
    rows = [torch.linalg.vector_norm(rows_written(s, held), ord=order, dim=1) for s in group.scored]
    return np.stack([relative(row.numpy()) for row in rows])
