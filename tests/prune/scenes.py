"""Scenes and slow, obvious answers for the tests of criteria."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gracile.graph import Group, capture, trace
from gracile.prune import Scene
from gracile.prune.criteria.examples import cross_entropy


def scene_of(model: nn.Module, x: Tensor, y: Tensor | None = None, size: int = 16, **fields: Any) -> Scene:
    """All groups of ``model``, with batches of ``x`` (and targets)."""
    found = trace(capture(model, (x[:1],)))
    batches = tuple((part,) for part in x.split(size))
    labelled = () if y is None else tuple(zip(batches, y.split(size), strict=True))
    return Scene(
        model=model, provenance=found, groups=found.groups, calibration=batches, labelled=labelled, **fields
    )


def gated(model: nn.Module, group: Group, unit: int, gate: float, compute: Callable[[], Tensor]) -> Tensor:
    """What ``compute`` gives with everything that reads a unit multiplied by ``gate``."""
    state = dict(model.named_parameters())
    before = {s.param: state[s.param].detach().clone() for s in group.readers}
    with torch.no_grad():
        for slot in group.readers:
            state[slot.param].movedim(slot.axis, 0)[torch.from_numpy(slot.index[unit])] *= gate
        found = compute()
        for name, tensor in before.items():
            state[name].copy_(tensor)
    return found


def gate_differences(model: nn.Module, group: Group, x: Tensor, y: Tensor, step: float = 1e-5) -> np.ndarray:
    """Central differences of each example's loss in every gate ``(examples, units)``."""

    def loss() -> Tensor:
        return cross_entropy(model(x), y)

    columns = []
    for unit in range(group.units):
        high, low = (gated(model, group, unit, 1 + sign * step, loss) for sign in (1, -1))
        columns.append(((high - low) / (2 * step)).numpy())
    return np.stack(columns, 1)
