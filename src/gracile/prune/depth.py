"""Depth pruning: whole residual branches go, so that layers and not only channels become fewer.

Source: Veit, Wilber and Belongie, "Residual networks behave like ensembles of relatively shallow networks",
NIPS 2016, arXiv 1605.06431, section 4.1: a residual network hardly notices that one of its branches is gone.
Which ones go is chosen as backward elimination, by how far the outputs move on calibration images.

A narrow layer often costs a runtime nearly as much time as a wide one; a layer that is gone costs nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument, BudgetError
from gracile.graph import cost
from gracile.observe import Batch, Calibration, Outputs, chunks, divergence, outputs
from gracile.observe.batchnorm import reestimate_
from gracile.records import Branch, BranchPlan

from .budgets import Macs, Params
from .criteria.criterion import check_finite

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Branches:
    """Remove ``count`` residual branches.

    Raises:
        BadArgument: ``count`` is below 1.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadArgument("count", wanted="at least 1", found=f"count={self.count}")


def plan_branches(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    budget: Branches | Macs | Params,
    calibration: Calibration,
    cost_of: Callable[[Branch], float] | None = None,
    on_try: Callable[[int, int], None] | None = None,
) -> BranchPlan:
    """Choose the residual branches that go; the model is left as it was.

    Round by round the branch goes that moves the outputs least for what it costs: with outputs ``p`` of the
    whole model and ``q`` without the branch (and those that went before), the divergence is the mean over
    images of ``sum_c p_c log(p_c / q_c)`` in nats, with ``p`` and ``q`` the softmax of outputs
    ``(batch, classes)``; for other outputs it is ``|q - p|^2 / |p|^2``. Its rise is divided by the branch's
    multiply-adds, or by ``cost_of``. Branches inside a branch that goes go with it.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs; one image, so that costs are those of one image.
        budget: How many branches go, or what share of multiply-adds or parameters may stay.
        calibration: Unlabelled inputs, a few hundred.
        cost_of: What a branch costs, such as milliseconds measured; multiply-adds where not given.
        on_try: Told how many of how many trials are done, for a progress bar.

    Raises:
        BudgetError: There are not so many branches, or they do not cost so much.
        CaptureError: The model cannot be captured.
        NonFiniteError: Weights hold NaN or infinity.

    Example:
        >>> import torch
        >>> from gracile.testing import net
        >>> model, inputs = net("residual")
        >>> chosen = plan_branches(model, inputs, budget=Branches(count=1),
        ...                        calibration=torch.randn(8, 3, 8, 8))
        >>> len(chosen.removed), len(chosen.kept)
        (1, 1)
    """
    check_finite(model)
    found, skipped = surgery.find_branches(model, inputs)
    whole = cost(model, inputs)
    prices = {b.name: float(b.macs) if cost_of is None else cost_of(b) for b in found}
    need = _Need(budget, whole.macs, whole.params)
    need.check(found)
    batches = chunks(calibration, BATCH, model, takes=len(inputs))
    reference = [outputs(model, batch) for batch in batches]
    left, gone, moved = list(found), list[Branch](), list[float]()
    tries = sum(len(found) - i for i in range(need.rounds(found)))
    tried = 0
    while not need.met(gone):
        if not left:
            raise need.error(found)
        rises: dict[str, float] = {}
        for branch in left:
            rises[branch.name] = _without(model, [*gone, branch], batches, reference)
            tried += 1
            if on_try is not None:
                on_try(tried, max(tries, tried))
        before = moved[-1] if moved else 0.0
        # a branch whose loss helps is the best whatever it costs, hence no division of a fall
        best = min(left, key=lambda b: _price(rises[b.name] - before, _still(b, gone, prices)))
        left = [b for b in left if b is not best and not _inside(b, best)]
        gone.append(best)
        moved.append(rises[best.name])
    return BranchPlan(
        removed=tuple(gone),
        kept=tuple(b.name for b in left),
        divergence=tuple(moved),
        skipped=skipped,
        budget=str(budget),
        macs_before=whole.macs,
        macs_after=whole.macs - sum(b.macs for b in _outermost(gone)),
        params_before=whole.params,
        params_after=whole.params - sum(b.params for b in _outermost(gone)),
    )


def remove_branches(
    model: nn.Module, plan: BranchPlan, *, calibration: Calibration | None = None
) -> nn.Module:
    """Return a copy of ``model`` without the branches of ``plan``.

    Args:
        model: The model; left as it was.
        plan: From :func:`plan_branches`.
        calibration: Unlabelled inputs to estimate batch-norm statistics with.

    Raises:
        BadArgument: The plan was made for another model.
    """
    small = surgery.remove_branches_(copy.deepcopy(model), plan.removed)
    if calibration is not None and plan.removed:
        reestimate_(small, chunks(calibration, BATCH, small))
    return small


@dataclass(frozen=True)
class _Need:
    """When enough is gone."""

    budget: Branches | Macs | Params
    macs: int
    params: int

    def met(self, gone: Sequence[Branch]) -> bool:
        if isinstance(self.budget, Branches):
            return len(gone) >= self.budget.count
        apart = _outermost(gone)
        if isinstance(self.budget, Macs):
            return self.macs - sum(b.macs for b in apart) <= self.budget.fraction_kept * self.macs
        return self.params - sum(b.params for b in apart) <= self.budget.fraction_kept * self.params

    def rounds(self, found: tuple[Branch, ...]) -> int:
        """About how many branches go, for the progress bar."""
        if isinstance(self.budget, Branches):
            return self.budget.count
        share = 1 - self.budget.fraction_kept
        of = [b.macs / self.macs if isinstance(self.budget, Macs) else b.params / self.params for b in found]
        return min(len(found), math.ceil(share / max(sum(of) / max(len(of), 1), 1e-12)))

    def check(self, found: tuple[Branch, ...]) -> None:
        """Refuse what not even the loss of every branch reaches."""
        if not self.met(found):
            raise self.error(found)

    def error(self, found: Sequence[Branch]) -> BudgetError:
        """That these branches do not do."""
        macs = 1 - sum(b.macs for b in _outermost(found)) / max(self.macs, 1)
        return BudgetError(
            "budget",
            wanted=str(self.budget),
            found=f"{len(found)} residual branches that can go, {macs:.4f} of the multiply-adds without them",
            do="Ask for less, or prune channels.",
        )


def _inside(branch: Branch, outer: Branch) -> bool:
    """Whether ``branch`` lies in a module of ``outer``, as in a residual block of residual blocks."""
    modules = (*outer.inner, outer.end)
    return branch is not outer and any(f"{branch.end}.".startswith(f"{m}.") for m in modules)


def _outermost(branches: Sequence[Branch]) -> list[Branch]:
    """Those that lie in no other: what goes with an outer one must not count twice."""
    return [b for b in branches if not any(_inside(b, outer) for outer in branches)]


def _still(branch: Branch, gone: Sequence[Branch], prices: Mapping[str, float]) -> float:
    """What ``branch`` costs without what has gone from inside it."""
    inside = _outermost([b for b in gone if _inside(b, branch)])
    return prices[branch.name] - sum(prices[b.name] for b in inside)


def _price(rise: float, cost: float) -> float:
    return rise / max(cost, 1e-30) if rise > 0 else rise


def _without(
    model: nn.Module, gone: list[Branch], batches: tuple[Batch, ...], reference: list[Outputs]
) -> float:
    small = surgery.remove_branches_(copy.deepcopy(model), gone)
    apart = [
        divergence(wanted, outputs(small, batch)) for wanted, batch in zip(reference, batches, strict=True)
    ]
    return sum(apart) / len(apart)
