"""Gradual pruning: masks that grow while the network trains.

Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
ICLR workshops 2018, arXiv 1710.01878, section 3. Where we differ: any granularity, criterion and schedule;
what was masked stays masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gracile.errors import BadArgument
from gracile.observe import device_of
from gracile.records import MaskPlan, SparsityPoint, from_plain, to_plain

from ..masks.entries import EntryCriterion
from ..masks.granularity import Granularity
from ..masks.masking import PLAIN, SINGLE, Scope, both_masks, check_sparsity, choose_masks
from ..masks.masks import Masks
from ..masks.weights import Weight, find_weights
from .schedules import Cubic, Pace, Schedule, share_at

CUBIC = Cubic()
Gradients = Callable[[nn.Module], Mapping[str, Tensor]]


class GradualMasks:
    """A training hook that masks more and more weights, and keeps what is masked at zero.

    Use it while fine-tuning, or from the first step of a training from scratch. ``plan`` is the present plan,
    ``points`` how the sparsity went.

    Args:
        inputs: Example inputs, to find the layers.
        pace: First and last step of the growth, and how often.
        sparsity: At the end; for N:M it follows by itself.
        initial: At the beginning.
        schedule: How it grows in between, see :mod:`gracile.prune.training.schedules`.
        granularity: What goes as one.
        criterion: How entries are ranked.
        scope: See :func:`~gracile.prune.mask_plan`.
        leave: Layers left alone.
        gradients: Gives the gradients of the present model, for criteria that need them.
        previous: Masks that the model has already; what they hold at zero stays zero.
        seed: Of random scores.

    Raises:
        BadArgument: A sparsity lies outside its range, or gradients are missing.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> pace = Pace(end=4, every=2)
        >>> grow = GradualMasks((torch.zeros(1, 4),), pace=pace, sparsity=0.75, leave=("last",))
        >>> for step in range(5):
        ...     grow.on_step_begin(net, optimizer, step=step, epoch=1)
        ...     net(torch.ones(2, 4)).sum().backward()
        ...     optimizer.step()
        >>> [(point.step, point.sparsity) for point in grow.points]
        [(0, 0.0), (2, 0.625), (4, 0.75)]
    """

    def __init__(
        self,
        inputs: tuple[Tensor, ...],
        *,
        pace: Pace,
        sparsity: float | None = None,
        initial: float = 0.0,
        schedule: Schedule = CUBIC,
        granularity: Granularity = SINGLE,
        criterion: EntryCriterion = PLAIN,
        scope: Scope = "layer",
        leave: Sequence[str] = ("first", "last"),
        gradients: Gradients | None = None,
        previous: MaskPlan | None = None,
        seed: int = 0,
    ) -> None:
        self.final = check_sparsity(granularity, sparsity, scope)
        if not 0 <= initial <= self.final:
            raise BadArgument("initial", wanted=f"from 0 to {self.final:g}", found=f"{initial=}")
        if criterion.needs_gradients and gradients is None:
            raise BadArgument("gradients", wanted=f"what {criterion} goes by", found="none",
                              do="Pass a function that calls prune.mean_gradients.")  # fmt: skip
        self.inputs, self.pace, self.initial, self.schedule = inputs, pace, initial, schedule
        self.granularity, self.criterion, self.scope, self.leave = granularity, criterion, scope, tuple(leave)
        self.gradients, self.previous, self.seed = gradients, previous, seed
        self.points: list[SparsityPoint] = []
        self._masks = Masks(previous)
        self._last: int | None = None
        self._model: nn.Module | None = None
        self._found: tuple[nn.Module, tuple[Weight, ...]] | None = None

    @property
    def plan(self) -> MaskPlan | None:
        """The present plan; ``None`` before the first."""
        return self._masks.plan

    @property
    def settled(self) -> bool:
        """Whether the final sparsity is reached."""
        return self._last == self.pace.end

    def on_begin(self, model: nn.Module, optimizer: Optimizer, *, average: nn.Module | None = None) -> None:
        """Take hold of the model, its optimizer and its averaged copy; with another model, begin anew."""
        if self._model is not None and self._model is not model:
            self._masks.release()
            self._masks.hold(self.previous)
            self._last, self.points = None, []
        self._model = model
        self._masks.on_begin(model, optimizer, average=average)

    def on_step_begin(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Mask more where it is time."""
        if not self._masks.holds(model, optimizer):
            self.on_begin(model, optimizer)
        self._masks.on_step_begin(model, optimizer, step=step, epoch=epoch)
        self._grow(model, step)

    def on_step_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Set the zeros again: averages were updated behind the optimizer's step."""
        self._masks.on_step_end(model, optimizer, step=step, epoch=epoch)

    def on_epoch_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Mask more where it is time, ``step`` being the number of steps done."""
        self._masks.on_epoch_end(model, optimizer, step=step, epoch=epoch)
        self._grow(model, step)

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share."""
        previous = None if self.previous is None else self.previous.masks
        growth = {"pace": self.pace, "schedule": self.schedule, "initial": self.initial}
        choice = {"granularity": self.granularity, "criterion": self.criterion, "scope": self.scope}
        rest = {"sparsity": self.final, "leave": self.leave, "previous": previous, "seed": self.seed}
        return {**growth, **choice, **rest}

    def memory(self) -> dict[str, Any]:
        """The plan, the last moment and the points so far."""
        points = [to_plain(point) for point in self.points]
        return self._masks.memory() | {"last": self._last, "points": points}

    def resume(self, memory: dict[str, Any]) -> None:
        """Go on where it was."""
        self._masks.resume(memory)
        self._last = memory["last"]
        self.points = [from_plain(SparsityPoint, point) for point in memory["points"]]

    def _grow(self, model: nn.Module, step: int) -> None:
        moment = self.pace.moment(step)
        if moment is None or moment == self._last:
            return
        share = share_at(self.schedule, self.pace.progress(moment))
        gradients = self.gradients(model) if self.gradients and self.criterion.needs_gradients else None
        chosen = choose_masks(
            model,
            self._weights(model),
            granularity=self.granularity,
            criterion=self.criterion,
            sparsity=self.initial + (self.final - self.initial) * share,
            scope=self.scope,
            gradients=gradients,
            previous=self.plan,
            seed=self.seed,
        )
        plan = both_masks(self.plan, chosen)
        self._masks.hold(plan)
        self._last = moment
        self.points.append(SparsityPoint(step=step, sparsity=plan.found_sparsity, layers=plan.by_layer))

    def _weights(self, model: nn.Module) -> tuple[Weight, ...]:
        """The weights of ``model``, found once."""
        if self._found is None or self._found[0] is not model:
            device = device_of(model)
            self._found = model, find_weights(model, tuple(x.to(device) for x in self.inputs), self.leave)[0]
        return self._found[1]
