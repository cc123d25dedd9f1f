"""From a model and a budget to a plan: trace, test, score, allocate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument, NonFiniteError
from gracile.graph import Group, Provenance, capture, trace
from gracile.observe import Batch, Calibration, chunks
from gracile.records import GroupPlan, PrunePlan, Skipped

from .allocate import allocate
from .budgets import Budget, Macs
from .criteria.criterion import Criterion, Scene, Scores, check_finite
from .criteria.examples import Labelled, Loss, cross_entropy, labelled_chunks
from .criteria.l1 import L1
from .leave import split_left
from .trunks import TrunkChoice, trunk_cuts

BATCH = 32
PLAIN = L1()
HALF = Macs(fraction_kept=0.5)
ROUNDS = 4


def plan(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    criterion: Criterion = PLAIN,
    budget: Budget = HALF,
    leave: Sequence[str] = ("first", "last"),
    round_to: int = 1,
    calibration: Calibration | None = None,
    labelled: Labelled | None = None,
    loss: Loss = cross_entropy,
    trunk: TrunkChoice = "coupled",
    seed: int = 0,
) -> PrunePlan:
    """Choose the channels that go; the model is left as it was.

    Groups whose removal fails on the model itself (a constant in its code that no longer fits) are found by
    trying, left whole and recorded with their source line.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs; one image, so that costs are those of one image.
        criterion: How units are ranked; default :class:`~gracile.prune.L1`.
        budget: What may stay; default half of the multiply-adds.
        leave: Layers left alone, see :func:`~gracile.prune.leave.split_left`; "first" and "last" because the
            first sees the image and the last names the classes.
        round_to: Kept channels are a multiple of it.
        calibration: Unlabelled inputs, for criteria that need data.
        labelled: Inputs with targets, ``(images, labels)`` or batches of them, for criteria that
            differentiate a loss. With ``calibration`` alone these take the classes that the model predicts.
        loss: Outputs and targets of a batch to one number an example.
        trunk: How residual trunks are pruned, for all branches or by patterns of layer names, see
            :func:`~gracile.prune.trunks.trunk_cuts`.
        seed: Of random scores and of the inputs that the removal is tried on.

    Raises:
        BadArgument: ``round_to`` is below 1, a name in ``leave`` fits nothing, or data is missing.
        BudgetError: The budget cannot be met; the error names the nearest that can.
        CaptureError: The model cannot be captured.
        NonFiniteError: Weights or activations hold NaN or infinity.

    Example:
        >>> import torch
        >>> from gracile.prune import PerLayer
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> print(plan(net, (torch.zeros(1, 4),), budget=PerLayer(ratio=0.5), leave=()))
        L1(aggregation='mean'), PerLayer(ratio=0.5): MACs 48 -> 24, params 58 -> 30
          0: keep 4 of 8
          left alone 2: is an output of the network
    """
    if round_to < 1:
        raise BadArgument("round_to", wanted="at least 1", found=f"{round_to=}")
    check_finite(model)
    captured = capture(model, inputs)
    provenance = trace(captured, cuts=trunk_cuts(model, captured, trunk))
    free, left = split_left(provenance.captured, provenance.groups, leave)
    tested = surgery.probe(model, inputs, provenance, seed)
    stuck = {s.where for s in tested.skipped}
    free = tuple(g for g in free if g.name not in stuck)
    looks = criterion.needs_data
    seen: tuple[Batch, ...] = ()
    if calibration is not None and looks:
        seen = chunks(calibration, BATCH, model, takes=len(inputs))
    scene = Scene(
        model=model,
        provenance=provenance,
        groups=free,
        calibration=seen,
        labelled=labelled_chunks(labelled, BATCH, model) if labelled is not None and looks else (),
        loss=loss,
        seed=seed,
        choice=tested.choice,
    )
    scores = checked(criterion(scene))
    skipped = [*provenance.frozen, *left, *tested.skipped]
    for _ in range(ROUNDS):
        removed = allocate(provenance, free, scores, budget, round_to=round_to, marginal=criterion.marginal)
        done = surgery.resolve(model, inputs, provenance, removed, choice=tested.choice, seed=seed)
        if not done.skipped:
            break
        skipped += done.skipped
        failed = {s.where for s in done.skipped}
        free = tuple(g for g in free if g.name not in failed)
    found = write_plan(provenance, free, done, skipped)
    return replace(found, criterion=str(criterion), budget=str(budget))


def checked(scores: Scores) -> Scores:
    """``scores``, which have to be numbers: NaN would rank units by their place.

    Raises:
        NonFiniteError: A score is NaN.
    """
    for name, found in scores.items():
        bad = int(np.isnan(found).sum())
        if bad:
            raise NonFiniteError(name, wanted="scores that are numbers", found=f"{bad} of {len(found)} NaN",
                                 do="Look for NaN or infinity in activations and gradients.")  # fmt: skip
    return scores


def write_plan(
    provenance: Provenance, groups: Sequence[Group], done: surgery.Resolution, skipped: Sequence[Skipped]
) -> PrunePlan:
    """The record of a removal that was tried: what stays of each group, and the costs by formula."""
    before, after = provenance.cost(), provenance.cost(done.removed)
    return PrunePlan(
        groups=tuple(kept_units(g, done.removed.get(g.name, ())) for g in groups),
        slices=done.slices,
        attributes=done.attributes,
        rewires=provenance.rewires(done.removed),
        skipped=_once(skipped),
        macs_before=before.macs,
        macs_after=after.macs,
        params_before=before.params,
        params_after=after.params,
    )


def kept_units(group: Group, removed: Sequence[int]) -> GroupPlan:
    """The record of a group that loses ``removed``."""
    gone = set(removed)
    keep = tuple(u for u in range(group.units) if u not in gone)
    return GroupPlan(name=group.name, units=group.units, keep=keep, members=group.members)


def _once(skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """One record a place: the first reason counts."""
    found: dict[str, Skipped] = {}
    for s in skipped:
        found.setdefault(s.where, s)
    return tuple(found.values())
