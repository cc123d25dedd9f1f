"""Merge near-identical channels instead of removing one: mean of the rows, sum of the columns that read them.

Source: Yvinec, Dapogny, Cord and Bailly, "RED: looking for redundancies for data-free structured compression
of deep neural networks", NeurIPS 2021, arXiv 2105.14797, section 3 (similar neurons are replaced by their
mean, the next layer's weights are summed). Where we differ: no hashing of weights first; channels that
several layers write are compared by all of them, their biases and batch norms; and whether a group may merge
is found on the model itself, by making its channels equal and comparing outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument
from gracile.graph import Group, Provenance, capture, trace
from gracile.observe import Calibration
from gracile.records import Proof, PrunePlan, Skipped
from gracile.surgery.reference import tensors_of
from gracile.surgery.verify import Stage, difference, run

from .allocate import Removed, allocate
from .budgets import Budget
from .criteria.criterion import check_finite
from .criteria.nearest import Join, join_nearest, scores_of
from .criteria.similarity import described
from .leave import split_left
from .planning import write_plan
from .repair.reconstruct import reconstruct_

Clusters = Mapping[str, tuple[tuple[int, ...], ...]]
"""Per group, the units that become one; the first of each stays."""
_WHY = "merging equal channels changes the outputs: something counts, normalises or multiplies them together"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A narrower model, the plan that says which channels went, and which units became one.

    ``proof`` compares the narrow model, before any refit, with the whole one in which every unit has the
    mean of its cluster.
    """

    model: nn.Module
    plan: PrunePlan
    clusters: Clusters
    proof: Proof


def merge(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    budget: Budget | None = None,
    tolerance: float = 1e-6,
    leave: Sequence[str] = ("first", "last"),
    round_to: int = 1,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> Merged:
    """Merge the nearest channels, without data; ``model`` is left as it was.

    Of units ``u`` with numbers ``w_u`` (weights that write them, biases, batch norms) and columns ``c_u`` in
    what reads them, a cluster ``C`` becomes one with ``mean_C w_u`` and ``sum_C c_u``. Where all ``w_u`` are
    equal, the outputs are the same.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs, one image.
        budget: What may stay: the nearest channels merge until it is met. Default: no budget, and all those
            merge that are at most ``tolerance`` apart.
        tolerance: Distance relative to the mean norm of each layer's rows.
        leave: Layers left alone, as for :func:`~gracile.prune.plan`.
        round_to: Kept channels are a multiple of it.
        calibration: Unlabelled inputs; with them, layers that read merged channels are refitted afterwards.
        seed: Of the inputs that the merging is tried on.

    Raises:
        BadArgument: ``tolerance`` is negative, ``round_to`` below 1, or a name in ``leave`` fits nothing.
        BudgetError: The budget cannot be met.
        CaptureError: The model cannot be captured.
        NonFiniteError: Weights hold NaN or infinity.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> with torch.no_grad():
        ...     _ = net[0].weight[2].copy_(net[0].weight[0]), net[0].bias[2].copy_(net[0].bias[0])
        >>> merged = merge(net, (torch.zeros(1, 2),), leave=())
        >>> x = torch.randn(5, 2)
        >>> merged.clusters, torch.allclose(merged.model(x), net(x), atol=1e-6)
        ({'0': ((0, 2),)}, True)
    """
    if not tolerance >= 0 or round_to < 1:
        wanted = "a tolerance of at least 0 and round_to of at least 1"
        raise BadArgument("merge", wanted=wanted, found=f"{tolerance=}, {round_to=}")
    check_finite(model)
    provenance = trace(capture(model, inputs))
    free, left = split_left(provenance.captured, provenance.groups, leave)
    tested = surgery.probe(model, inputs, provenance, seed)
    free = _without(free, tested.skipped)
    stage = Stage(model, inputs, seed)
    bad = _unmergeable(stage, provenance, free, tested.choice)
    skipped = [*provenance.frozen, *left, *tested.skipped, *bad]
    free = _without(free, bad)
    held = tensors_of(model)
    joins = {g.name: join_nearest(described(g, held), 2, mean=True) for g in free}
    if budget is None:
        removed = _within(free, joins, tolerance, round_to)
    else:
        scores = {g.name: scores_of(joins[g.name], g.units) for g in free}
        removed = allocate(provenance, free, scores, budget, round_to=round_to)
    done = surgery.resolve(model, inputs, provenance, removed, choice=tested.choice, seed=seed)
    clusters = {n: clusters_of(joins[n][: len(units)]) for n, units in done.removed.items() if units}
    plan = write_plan(provenance, _without(free, done.skipped), done, [*skipped, *done.skipped])
    what = f"merging within {tolerance:g}" if budget is None else "merging"
    plan = replace(plan, criterion=what, budget="" if budget is None else str(budget))
    small, chosen = copy.deepcopy(model), [g for g in free if g.name in clusters]
    merge_(small, chosen, clusters)
    surgery.apply_(small, plan)
    proof = _proof(stage, chosen, clusters, plan)
    if calibration is not None and plan.slices:
        reconstruct_(small, model, plan, calibration, seed=seed)
    return Merged(model=small, plan=plan, clusters=clusters, proof=proof)


def merge_(model: nn.Module, groups: Sequence[Group], clusters: Clusters, *, reads: bool = True) -> None:
    """Give every unit of a cluster the mean of what writes it and the first all that reads them, in place.

    Args:
        model: Of full width; the units that are not first are still there, and equal to the first.
        groups: Groups with clusters.
        clusters: Which units become one.
        reads: Sum columns; otherwise only the rows change, and the outputs are what merging must give.
    """
    held = tensors_of(model)
    with torch.no_grad():
        for group in groups:
            for slot in group.slots:
                rows = held[slot.param].movedim(slot.axis, 0)
                if not rows.is_floating_point() or (slot.role == "read" and not reads):
                    continue
                for units in clusters[group.name]:
                    at = torch.from_numpy(slot.index[list(units)]).to(rows.device)  # (members, positions)
                    if slot.role == "read":
                        rows[at[0]] = rows[at].sum(0)
                    else:
                        rows[at] = rows[at].mean(0, keepdim=True).expand_as(rows[at]).clone()


def _proof(stage: Stage, groups: Sequence[Group], clusters: Clusters, plan: PrunePlan) -> Proof:
    """That the narrow model gives what the whole one gives with the means of all clusters in it."""
    equal, small = copy.deepcopy(stage.model), copy.deepcopy(stage.model)
    merge_(equal, groups, clusters, reads=False)
    merge_(small, groups, clusters)
    wanted = run(equal, stage.inputs)
    error = difference(run(surgery.apply_(small, plan), stage.inputs), wanted)
    dropped = run(surgery.apply_(equal, plan), stage.inputs)  # readers that lose what went
    return Proof(
        name="channels merged",
        passed=error <= stage.tolerance,
        error=error,
        tolerance=stage.tolerance,
        effect=difference(dropped, wanted),
        detail=f"{sum(len(units) for found in clusters.values() for units in found)} channels in "
        f"{sum(map(len, clusters.values()))} clusters",
    )


def clusters_of(joins: Sequence[Join]) -> tuple[tuple[int, ...], ...]:
    """Which units become one after some steps; the one that stays stands first.

    Example:
        >>> clusters_of([Join(1, 2, 0.0), Join(4, 3, 0.1), Join(2, 0, 0.2)])
        ((0, 1, 2), (3, 4))
    """
    found: dict[int, list[int]] = {}
    for join in joins:
        found.setdefault(join.into, [join.into]).extend(found.pop(join.goes, [join.goes]))
    return tuple((units[0], *sorted(units[1:])) for _, units in sorted(found.items()))


def _within(
    groups: Sequence[Group], joins: Mapping[str, Sequence[Join]], tolerance: float, round_to: int
) -> Removed:
    """Units that go when all steps up to a distance are taken, kept numbers rounded up."""
    removed: Removed = {}
    for group in groups:
        far = [join.distance > tolerance for join in joins[group.name]]
        count = far.index(True) if any(far) else len(far)
        kept = min(-(-(group.units - count) // round_to) * round_to, group.units)
        gone = [join.goes for join in joins[group.name][: group.units - kept]]
        if gone:
            removed[group.name] = tuple(sorted(gone))
    return removed


def _without(groups: Sequence[Group], skipped: Sequence[Skipped]) -> tuple[Group, ...]:
    names = {s.where for s in skipped}
    return tuple(g for g in groups if g.name not in names)


def _unmergeable(
    stage: Stage, provenance: Provenance, groups: Sequence[Group], choice: Mapping[str, int]
) -> tuple[Skipped, ...]:
    """Groups in which merging two equal channels changes the outputs, found by trying it."""

    def fails(chosen: Sequence[Group]) -> bool:
        pairs: Clusters = {g.name: ((0, 1),) for g in chosen}
        equal, small = copy.deepcopy(stage.model), copy.deepcopy(stage.model)
        merge_(equal, chosen, pairs, reads=False)
        merge_(small, chosen, pairs)
        plan = PrunePlan(groups=(), slices=provenance.slices({g.name: (1,) for g in chosen}))
        gone = provenance.gone({g.name: (1,) for g in chosen})
        edits = surgery.edits(stage.model, provenance, gone, dict(choice))
        try:
            found = run(surgery.apply_(small, replace(plan, attributes=edits)), stage.inputs)
        except Exception:  # the model's own code may object to its width with any error
            return True
        return difference(found, run(equal, stage.inputs)) > stage.tolerance

    def search(chosen: Sequence[Group]) -> list[Group]:
        if not chosen or not fails(chosen):
            return []
        if len(chosen) == 1:
            return list(chosen)
        middle = len(chosen) // 2
        return search(chosen[:middle]) + search(chosen[middle:])

    return tuple(Skipped(g.name, _WHY) for g in search(groups))
