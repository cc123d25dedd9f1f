"""Sensitivity analysis: each group of channels is narrowed alone, and the outputs say how much it matters.

Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", ICLR 2017, arXiv
1608.08710, section 3.2. Where we differ: the divergence of the outputs needs no labels and is finer than
accuracy, and the curves become costs of single channels, so that any budget can be met with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import ValidationError
from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument
from gracile.graph import Group
from gracile.observe import Batch, Outputs, divergence, outputs, raw_bytes
from gracile.records import (
    GroupSensitivity,
    PrunePlan,
    SensitivityTable,
    atomic_bytes,
    from_json,
    to_json,
)
from gracile.surgery.reference import tensors_of

from .criterion import Criterion, Scene, Scores
from .examples import logits
from .l1 import L1

RATIOS = (0.125, 0.25, 0.5, 0.75, 0.875)
PLAIN = L1()


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Score a unit by what narrowing its group down to it does to the outputs.

    Units of a group leave in the order of ``ranking``. With ``D(k)`` the divergence when ``k`` units of the
    group alone have left, measured at ``ratios``, linear in between and made neither to fall nor to bend
    down, the ``k``-th to leave costs ``D(k) - D(k - 1)``. These costs add up between groups, so budgets go by
    cost per multiply-add, parameter or millisecond.

    Args:
        ranking: Orders the units of a group.
        ratios: Shares of a group at which ``D`` is measured, rising, above 0 and below 1.
        cache: JSON file of the measured curves; a run with the same weights, data and choices reads it.

    Raises:
        BadArgument: The ratios do not rise, or lie outside their range.

    Example:
        >>> from gracile.prune import Macs, plan
        >>> from gracile.testing import net
        >>> model, inputs = net("plain")
        >>> import torch
        >>> found = plan(model, inputs, criterion=Sensitivity(), budget=Macs(fraction_kept=0.5),
        ...              calibration=torch.randn(16, 3, 8, 8))
        >>> found.macs_after <= 0.5 * found.macs_before
        True
    """

    marginal: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    ranking: Criterion = PLAIN
    ratios: tuple[float, ...] = RATIOS
    cache: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check(self.ratios)

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no calibration data.
        """
        ranks = self.ranking(scene)
        table = measured(scene, ranks, self.ratios, str(self.ranking), cache=self.cache)
        curves = {group.name: group.points for group in table.groups}
        return {g.name: _scores(ranks[g.name], curves[g.name]) for g in scene.groups}

    def __str__(self) -> str:
        return f"Sensitivity(ranking={self.ranking})"


def measured(
    scene: Scene,
    ranks: Scores,
    ratios: Sequence[float] = RATIOS,
    ranking: str = "",
    *,
    cache: Path | None = None,
    on_try: Callable[[int, int], None] | None = None,
) -> SensitivityTable:
    """Narrow each group alone and compare the outputs.

    Args:
        scene: The model, its groups and its data. With ``labelled`` data the metric is the points of accuracy
            lost, otherwise the divergence of :mod:`gracile.observe.divergence`.
        ranks: Scores of the units; the lowest leave first.
        ratios: Shares of a group that leave.
        ranking: Name of the criterion that gave ``ranks``.
        cache: JSON file to read the table from, or to write it to.
        on_try: Told how many of how many trials are done.

    Raises:
        BadArgument: There is no data.
    """
    examples: Sequence[tuple[Batch, Tensor | None]] = scene.labelled
    if not examples:
        examples = [(batch, None) for batch in scene.calibration]
    if not examples:
        raise BadArgument("calibration", wanted="inputs for the sensitivity analysis", found="none",
                          do="Pass calibration= or labelled=.")  # fmt: skip
    key = "" if cache is None else _key(scene, ranks, ratios)
    kept = _read(cache, key)
    if kept is not None:
        return kept
    whole = [outputs(scene.model, batch) for batch, _ in examples]
    metric = "accuracy" if scene.labelled else "kl"

    def moved(model: nn.Module) -> float:
        found = [outputs(model, batch) for batch, _ in examples]
        if metric == "kl":
            apart = [divergence(w, f) for w, f in zip(whole, found, strict=True)]
            return sum(apart) / len(apart)
        labels = [labels for _, labels in examples]
        return _percent(whole, labels) - _percent(found, labels)

    groups = []
    for place, group in enumerate(scene.groups):
        order = np.argsort(ranks[group.name], kind="stable")
        points = [(group.units, 0.0)]
        for step, ratio in enumerate(ratios):
            count = min(round(ratio * group.units), group.units - 1)
            if count and group.units - count != points[-1][0]:
                gone = tuple(sorted(int(u) for u in order[:count]))
                points.append((group.units - count, moved(_narrowed(scene, group, gone))))
            if on_try is not None:
                on_try(place * len(ratios) + step + 1, len(scene.groups) * len(ratios))
        groups.append(GroupSensitivity(name=group.name, units=group.units, points=tuple(points)))
    images = sum(len(batch[0]) for batch, _ in examples)
    table = SensitivityTable(metric=metric, ranking=ranking, images=images, groups=tuple(groups), key=key)
    if cache is not None:
        atomic_bytes(cache, to_json(table))
    return table


def _check(ratios: Sequence[float]) -> None:
    rising = all(a < b for a, b in pairwise(ratios))
    if not ratios or not rising or not 0 < ratios[0] <= ratios[-1] < 1:
        raise BadArgument("ratios", wanted="shares above 0 and below 1, rising", found=f"{ratios=}")


def _narrowed(scene: Scene, group: Group, gone: tuple[int, ...]) -> nn.Module:
    removed = {group.name: gone}
    gone_labels = scene.provenance.gone(removed)
    attributes = surgery.edits(scene.model, scene.provenance, gone_labels, dict(scene.choice))
    plan = PrunePlan(
        groups=(),
        slices=scene.provenance.slices(removed),
        attributes=attributes,
        rewires=scene.provenance.rewires(removed),
    )
    return surgery.apply(scene.model, plan)


def _percent(found: Sequence[Outputs], labels: Sequence[Tensor | None]) -> float:
    """Accuracy by the first output."""
    pairs = [(logits(f[:1]), y) for f, y in zip(found, labels, strict=True)]
    right = sum(int((f.argmax(1) == y.to(f.device)).sum()) for f, y in pairs if y is not None)
    return 100 * right / sum(len(f) for f, _ in pairs)


def _scores(ranks: np.ndarray, points: Sequence[tuple[int, float]]) -> np.ndarray:
    """The rise of the curve at each unit, in the order in which units leave."""
    units = len(ranks)
    left = np.array([units - kept for kept, _ in points], dtype=np.float64)
    moved = np.maximum.accumulate(np.maximum([value for _, value in points], 0.0))
    steps = np.arange(units + 1, dtype=np.float64)
    curve = np.interp(steps, left, moved)
    if len(left) > 1:  # beyond the last ratio the last slope goes on
        slope = (moved[-1] - moved[-2]) / (left[-1] - left[-2])
        beyond = steps > left[-1]
        curve[beyond] = moved[-1] + slope * (steps[beyond] - left[-1])
    rises = np.maximum.accumulate(np.diff(curve))  # a queue leaves in the order of rising scores
    scores = np.empty(units)
    scores[np.argsort(ranks, kind="stable")] = rises * (1 + 1e-9 * np.arange(units)) + 1e-15 * np.arange(
        units
    )
    return scores


def _key(scene: Scene, ranks: Scores, ratios: Sequence[float]) -> str:
    digest = hashlib.sha256(repr(tuple(ratios)).encode())
    for name, tensor in tensors_of(scene.model).items():
        digest.update(name.encode())
        digest.update(raw_bytes(tensor))
    for batch in (*scene.calibration, *((*inputs, labels) for inputs, labels in scene.labelled)):
        for x in batch:
            digest.update(raw_bytes(x))
    for group in scene.groups:
        digest.update(group.name.encode())
        digest.update(np.ascontiguousarray(ranks[group.name]).tobytes())
    return digest.hexdigest()


def _read(cache: Path | None, key: str) -> SensitivityTable | None:
    """The kept table where it is of the very same analysis."""
    if cache is None or not cache.is_file():
        return None
    try:
        table = from_json(SensitivityTable, cache.read_bytes())
    except (ValidationError, ValueError):
        return None
    return table if table.key == key else None
