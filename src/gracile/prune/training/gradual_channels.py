"""Gradual removal of whole channels during training: the network gets narrower as it goes.

Source: schedules of Zhu and Gupta, arXiv 1710.01878, section 3, on channels that are really removed, as in
Alvarez and Salzmann, "Compression-aware training of deep networks", NIPS 2017, arXiv 1711.02638, section 3.3;
the budget moves with the schedule, measured on the network as it was in the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gracile import surgery
from gracile.errors import BadArgument
from gracile.observe import Calibration, device_of, joined
from gracile.records import PrunePlan, SparsityPoint, from_plain, to_plain

from ..budgets import Budget, Bytes, Global, Macs, Milliseconds, Params, PerLayer, Widths
from ..criteria.criterion import Criterion
from ..masks.masks import plain_optimizer
from ..planning import HALF, PLAIN, plan
from .schedules import Cubic, Pace, Schedule, share_at

CUBIC = Cubic()


class GradualChannels:
    """A training hook that removes channels step by step, with the optimizer's state and the average.

    What is left trains faster after each step. Each one captures and traces the network again, which takes
    seconds, so let tens of steps or more pass between them. Everything works on the user's own modules, in
    one process. ``plans`` lists what was removed, ``points`` how the widths went.

    Args:
        inputs: Example inputs.
        pace: First and last step of the removal, and how often.
        budget: Of the network as it is when training begins, reached at the end.
        schedule: How much of it at which moment.
        criterion: How channels are ranked.
        leave: Layers left alone.
        round_to: Kept channels are a multiple of it.
        calibration: Unlabelled inputs, for criteria that need data.
        seed: Of random scores and of the inputs that removals are tried on.

    Raises:
        BadArgument: The budget is in milliseconds.
        BudgetError: The budget cannot be met; raised by the first step that removes anything.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> half = PerLayer(ratio=0.5)
        >>> shrink = GradualChannels((torch.zeros(1, 4),), pace=Pace(end=2), budget=half, leave=())
        >>> for step in range(3):
        ...     shrink.on_step_begin(net, optimizer, step=step, epoch=1)
        ...     net(torch.ones(2, 4)).sum().backward()
        ...     optimizer.step()
        >>> net[0].out_features, shrink.settled
        (4, True)
    """

    def __init__(
        self,
        inputs: tuple[Tensor, ...],
        *,
        pace: Pace,
        budget: Budget = HALF,
        schedule: Schedule = CUBIC,
        criterion: Criterion = PLAIN,
        leave: Sequence[str] = ("first", "last"),
        round_to: int = 1,
        calibration: Calibration | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(budget, Milliseconds | Bytes):
            raise BadArgument(
                "budget", wanted="channels, multiply-adds or parameters", found=str(budget),
                do="Plan by measured time or by bytes before the training.",
            )  # fmt: skip
        self.inputs, self.pace, self.budget, self.schedule = inputs, pace, budget, schedule
        self.criterion, self.leave, self.round_to = criterion, tuple(leave), round_to
        self.calibration = None if calibration is None else [joined(calibration)]  # read at every step
        self.seed = seed
        self.plans: list[PrunePlan] = []
        self.points: list[SparsityPoint] = []
        self._last: int | None = None
        self._model: nn.Module | None = None
        self._optimizer: Optimizer | None = None
        self._average: nn.Module | None = None

    @property
    def settled(self) -> bool:
        """Whether the budget is reached."""
        return self._last == self.pace.end

    def on_begin(self, model: nn.Module, optimizer: Optimizer, *, average: nn.Module | None = None) -> None:
        """Take hold of the model, its optimizer and its averaged copy; with another model, begin anew."""
        if self._model is not None and self._model is not model:
            self.plans, self.points, self._last = [], [], None
        self._model, self._average = model, average
        self._optimizer = plain_optimizer(optimizer)

    def on_step_begin(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Remove channels where it is time."""
        if self._model is not model:
            self.on_begin(model, optimizer)
        self._optimizer = plain_optimizer(optimizer)
        self._shrink(step)

    def on_step_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Nothing."""

    def on_epoch_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Remove channels where it is time, ``step`` being the number of steps done."""
        self._shrink(step)

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share."""
        growth = {"pace": self.pace, "schedule": self.schedule, "budget": self.budget}
        choice = {"criterion": self.criterion, "leave": self.leave, "round_to": self.round_to}
        return {**growth, **choice, "seed": self.seed}

    def memory(self) -> dict[str, Any]:
        """The plans, the last moment and the points so far."""
        plans, points = ([to_plain(x) for x in part] for part in (self.plans, self.points))
        return {"plans": plans, "points": points, "last": self._last}

    def resume(self, memory: dict[str, Any]) -> None:
        """Give the model the widths that it had."""
        assert self._model is not None  # on_begin comes first
        self.plans = [from_plain(PrunePlan, entry) for entry in memory["plans"]]
        for done in self.plans:
            surgery.apply_(self._model, done, self._optimizer, self._average)
        self.points = [from_plain(SparsityPoint, point) for point in memory["points"]]
        self._last = memory["last"]

    def _shrink(self, step: int) -> None:
        moment = self.pace.moment(step)
        if moment is None or moment == self._last:
            return
        share = share_at(self.schedule, self.pace.progress(moment))
        if not self.plans and share < 1:
            self._plan(self.budget)  # what cannot be met is refused now, not at the end
        found = self._plan(budget_at(self.budget, share, self.plans))
        assert self._model is not None
        surgery.apply_(self._model, found, self._optimizer, self._average)
        self.plans.append(found)
        self.points.append(self._point(step))
        self._last = moment

    def _plan(self, budget: Budget) -> PrunePlan:
        assert self._model is not None
        device = device_of(self._model)
        return plan(
            self._model,
            tuple(x.to(device) for x in self.inputs),
            criterion=self.criterion,
            budget=budget,
            leave=self.leave,
            round_to=self.round_to,
            calibration=self.calibration,
            seed=self.seed,
        )

    def _point(self, step: int) -> SparsityPoint:
        whole = {group.name: group.units for group in self.plans[0].groups}
        layers = {g.name: 1 - len(g.keep) / whole.get(g.name, g.units) for g in self.plans[-1].groups}
        gone = 1 - self.plans[-1].params_after / max(self.plans[0].params_before, 1)
        return SparsityPoint(step=step, sparsity=gone, layers=layers)


def budget_at(budget: Budget, share: float, plans: Sequence[PrunePlan]) -> Budget:
    """The budget for the network as it is now, ``share`` of the way from the whole network to ``budget``.

    Args:
        budget: Of the whole network.
        share: From 0 to 1.
        plans: What was removed so far, the first plan being that of the whole network.

    Example:
        >>> budget_at(Macs(fraction_kept=0.5), 0.5, [])
        Macs(fraction_kept=0.75)
        >>> half_way = PrunePlan(groups=(), slices=(), macs_before=100, macs_after=75)
        >>> round(budget_at(Macs(fraction_kept=0.5), 1.0, [half_way]).fraction_kept, 6)
        0.666667
    """
    if isinstance(budget, PerLayer):
        if not plans:
            return PerLayer(ratio=budget.ratio * share)
        units = {g.name: g.units - int(budget.ratio * share * g.units + 1e-9) for g in plans[0].groups}
        return Widths(units=units)
    if isinstance(budget, Widths):
        if share < 1 and not plans:
            return PerLayer(ratio=0.0)  # how wide the groups are is known from the first plan on
        whole = {g.name: g.units for g in plans[0].groups} if plans else {}
        return Widths(units={n: round(_between(whole.get(n, k), k, share)) for n, k in budget.units.items()})
    if isinstance(budget, Global):
        now = sum(len(g.keep) for g in plans[-1].groups) if plans else 0
        whole_units = sum(g.units for g in plans[0].groups) if plans else 0
        if not whole_units:
            return Global(ratio=budget.ratio * share)
        wish = int(budget.ratio * share * whole_units + 1e-9)
        return Global(ratio=max(wish - (whole_units - now), 0) / now)
    assert not isinstance(budget, Bytes | Milliseconds)  # refused at the start
    kept_share = _between(1.0, budget.fraction_kept, share)
    kind = Macs if isinstance(budget, Macs) else Params
    if not plans:
        return kind(fraction_kept=kept_share)
    what = "macs" if kind is Macs else "params"
    before, after = getattr(plans[0], f"{what}_before"), getattr(plans[-1], f"{what}_after")
    return kind(fraction_kept=min(kept_share * before / after, 1.0))


def _between(a: float, b: float, share: float) -> float:
    return a + (b - a) * share
