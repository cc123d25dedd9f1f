"""Less is More: shrink the weights of every channel during training, and remove those that reach zero.

Source: Zhou, Alvarez and Porikli, "Less is More: Towards Compact CNNs", ECCV 2016; the four variants (basic,
reversed, layer by layer, relative), the interval between reductions, the removal at once and the stop before
the end from Marelli, "Implémentation d'un algorithme de réduction de taille des réseaux de neurones"
(LIMutils), Idiap-RR-03-2018, sections 3.3, 4.3 and 4.7. Where we differ: groups come from the traced graph,
so residual trunks, concatenations and depthwise layers need no code of their own; the constant that a removed
channel emits goes into the next bias, so that removing a channel of weight zero changes no output; momenta
and other optimizer state follow.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument
from gracile.graph import Group, capture, trace
from gracile.records import PrunePlan, Reduction, Skipped, from_plain, to_plain

from ..criteria.criterion import check_finite
from ..leave import split_left
from ..masks.masks import plain_optimizer
from ..planning import kept_units
from ..repair.constants import carry_constants_
from .composition import Composition
from .shrink import Relative, Threshold, group_norms, proximal, scale_

RELATIVE = Relative(ratio=0.1)


class LessIsMore:
    """Reduces a model while it trains; a hook of :func:`gracile.tune.fit`, or called in a loop of your own.

    Every ``every`` epochs each unit's weights ``w`` become ``max(||w|| - tau, 0) w / ||w||``, and units that
    became zero are removed from the model and from the optimizer's state. A group keeps one unit at least.

    In a loop of your own call :meth:`step` once at the end of each epoch (or of each step, if ``every`` is to
    count steps).

    Args:
        model: The model that will be trained.
        inputs: Example inputs, one image.
        threshold: :class:`~gracile.prune.Relative` or :class:`~gracile.prune.Absolute`.
        every: Epochs from one reduction to the next.
        start: First epoch after which there may be a reduction, from 1.
        stop: Last epoch after which there may be one; None for no end. Leave some epochs behind it: the
            network recovers from the last reduction in them.
        reversed: Group the weights that *read* a channel, not those that write it.
        phase: Reduce one group after the other, each for so many epochs (*layer by layer*); None for all
            groups at once.
        by_step: As a hook, count steps where this says epochs.
        leave: Layers left alone, see :func:`~gracile.prune.leave.split_left`. What names the classes is
            always.
        carry_constants: Put what a removed channel emits into the next bias.
        seed: Of the inputs that the removal is tried on.

    Raises:
        BadArgument: A number lies outside its range, or nothing in the model can shrink.
        CaptureError: The model cannot be captured.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 2.0]]))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> reducer = LessIsMore(net, (torch.zeros(1, 2),), threshold=Relative(ratio=0.2), every=1)
        >>> [(r.group, r.before, r.after, r.params) for r in reducer.step(net, optimizer)]
        [('0', 3, 2, 9)]
        >>> net[0].weight.tolist()  # norms 5 and 2 lost 1
        [[2.4000000953674316, 3.200000047683716], [0.0, 1.0]]
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        threshold: Threshold = RELATIVE,
        every: int = 2,
        start: int = 1,
        stop: int | None = None,
        reversed: bool = False,
        phase: int | None = None,
        by_step: bool = False,
        leave: tuple[str, ...] = (),
        carry_constants: bool = True,
        seed: int = 0,
    ) -> None:
        for name, number in (("every", every), ("start", start), ("stop", stop), ("phase", phase)):
            if number is not None and number < 1:
                raise BadArgument(name, wanted="at least 1", found=f"{name}={number}")
        self.threshold, self.every, self.start, self.stop = threshold, every, start, stop
        self.role = "read" if reversed else "write"
        self.phase, self.by_step, self.carry_constants, self.seed = phase, by_step, carry_constants, seed
        self.leave = tuple(leave)
        self.inputs = tuple(x.detach().cpu() for x in inputs)
        self.time = 0
        self.params = sum(p.numel() for p in model.parameters())
        self.history: tuple[Reduction, ...] = ()
        self._model: nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._average: nn.Module | None = None
        self._begin(model, leave)

    def _begin(self, model: nn.Module, leave: tuple[str, ...]) -> None:
        """Trace the model, and try which groups can shrink at all."""
        twin = _twin(model)
        self._provenance = trace(capture(twin, self.inputs))
        free, left = split_left(self._provenance.captured, self._provenance.groups, leave)
        tested = surgery.probe(twin, self.inputs, self._provenance, self.seed)
        stuck = {s.where for s in tested.skipped}
        free = tuple(g for g in free if g.name not in stuck and self._shrinks(g))
        if not free:
            raise BadArgument("model", wanted="a group of channels that can shrink", found="none",
                              do="See `gracile inspect` for the reasons.")  # fmt: skip
        self.skipped: tuple[Skipped, ...] = (*self._provenance.frozen, *left, *tested.skipped)
        self._choice = dict(tested.choice)
        self._order = tuple(g.members for g in free)  # names may change when groups vanish
        self._composition = Composition(self._provenance)

    def _shrinks(self, group: Group) -> bool:
        """Whether any weight in the group has the role that is shrunk."""
        return any(slot.role == self.role for slot in group.slots)

    @property
    def plan(self) -> PrunePlan:
        """All removals so far as one plan for the model as it was at the start."""
        criterion = f"LessIsMore({self.threshold}, every={self.every}, role={self.role})"
        return self._composition.plan(criterion=criterion, budget=f"stop={self.stop}", skipped=self.skipped)

    def params_after(self, time: int) -> int:
        """Parameters of the model after epoch (or step) ``time``."""
        return next((r.params for r in self.history[::-1] if r.time <= time), self.params)

    def step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, ema: nn.Module | None = None
    ) -> tuple[Reduction, ...]:
        """Tell that an epoch (or a step) is over; reduces the model when it is time.

        Args:
            model: The model given at the start, as training left it.
            optimizer: Its optimizer, whose state follows.
            ema: An averaged copy, which is narrowed too.

        Returns:
            What happened, one record a group; empty when it was not time.

        Raises:
            NonFiniteError: The weights hold NaN or infinity.
        """
        return self._at(self.time + 1, model, optimizer, ema)

    def on_step_begin(self, model: nn.Module, optimizer: Any, *, step: int, epoch: int) -> None:
        """Nothing."""

    def on_step_end(self, model: nn.Module, optimizer: Any, *, step: int, epoch: int) -> None:
        """Reduce, where steps are counted."""
        if self.by_step:
            self._at(step + 1, model, optimizer, self._average)

    def on_epoch_end(self, model: nn.Module, optimizer: Any, *, step: int, epoch: int) -> None:
        """Reduce, where epochs are counted."""
        if not self.by_step:
            self._at(epoch, model, optimizer, self._average)

    @property
    def settled(self) -> bool:
        """Whether the last reduction is over; without ``stop`` each width counts for itself."""
        return self.stop is None or self.time >= self.stop

    def on_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, average: nn.Module | None = None
    ) -> None:
        """Take hold of the model, its optimizer and its averaged copy."""
        self._model, self._average = model, average
        self._optimizer = plain_optimizer(optimizer)

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share."""
        when = {"every": self.every, "start": self.start, "stop": self.stop, "phase": self.phase}
        what = {"threshold": self.threshold, "role": self.role, "leave": self.leave, "seed": self.seed}
        return {**what, **when, "by_step": self.by_step, "carry_constants": self.carry_constants}

    def memory(self) -> dict[str, Any]:
        """What a checkpoint needs, as plain JSON data."""
        history = [to_plain(record) for record in self.history]
        return {"time": self.time, "plan": to_plain(self.plan), "history": history}

    def resume(self, memory: dict[str, Any]) -> None:
        """Give the model of :meth:`on_begin` the widths that :meth:`memory` tells of."""
        assert self._model is not None  # on_begin comes first
        plan = from_plain(PrunePlan, memory["plan"])
        self.time = memory["time"]
        self.history = tuple(from_plain(Reduction, record) for record in memory["history"])
        self.skipped = plan.skipped
        self._provenance = self._composition.provenance  # of the whole model
        self._composition = Composition(self._provenance)
        if plan.slices:
            surgery.apply_(self._model, plan, optimizer=self._optimizer, ema=self._average)
            self._composition.add(plan)
            self._provenance = trace(capture(_twin(self._model), self.inputs))

    def _at(
        self, time: int, model: nn.Module, optimizer: torch.optim.Optimizer | None, ema: nn.Module | None
    ) -> tuple[Reduction, ...]:
        self.time = time
        late = self.stop is not None and time > self.stop
        if late or time < self.start or time % self.every:
            return ()
        records = self._reduce(model, optimizer, ema)
        self.history += records
        return records

    def _turn(self) -> tuple[Group, ...]:
        """Groups whose turn it is: all that can shrink, or one after the other."""
        order = self._order
        if self.phase is not None:
            place = (self.time - 1) // self.phase
            order = order[place : place + 1]
        return tuple(g for g in self._provenance.groups if g.members in order)

    def _reduce(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None, ema: nn.Module | None
    ) -> tuple[Reduction, ...]:
        check_finite(model)
        groups = self._turn()
        gone: dict[str, Tensor] = {}
        taus: dict[str, float] = {}
        for group in groups:
            norms = group_norms(model, group, self.role)
            taus[group.name] = self.threshold(group.name, norms)
            factors = proximal(norms, taus[group.name])
            gone[group.name] = factors == 0
            # What writes a channel stays until it goes: a batch norm behind it has counted it
            scale_(model, group, factors if self.role == "read" else factors + gone[group.name], self.role)
        removed = {n: tuple(g.nonzero().flatten().tolist()) for n, g in gone.items() if bool(g.any())}
        done = self._remove(model, optimizer, ema, removed) if removed else {}
        params = sum(p.numel() for p in model.parameters())
        return tuple(
            Reduction(
                time=self.time,
                group=g.name,
                threshold=taus[g.name],
                before=g.units,
                after=g.units - len(done.get(g.name, ())),
                params=params,
            )
            for g in groups
        )

    def _remove(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        ema: nn.Module | None,
        removed: dict[str, tuple[int, ...]],
    ) -> dict[str, tuple[int, ...]]:
        """Narrow the model; units that cannot go after all get weights zero and stay."""
        twin = _twin(model)
        found = surgery.resolve(
            twin, self.inputs, self._provenance, removed, choice=self._choice, seed=self.seed
        )
        for name in removed.keys() - found.removed.keys():
            group = self._provenance.group(name)
            factors = torch.ones(group.units)
            factors[list(removed[name])] = 0
            scale_(model, group, factors, self.role)
        self.skipped += tuple(s for s in found.skipped if s not in self.skipped)
        if not found.removed:
            return {}
        plan = PrunePlan(
            groups=tuple(kept_units(self._provenance.group(n), units) for n, units in found.removed.items()),
            slices=found.slices,
            attributes=found.attributes,
        )
        if self.carry_constants:
            twin.load_state_dict(model.state_dict())
            carry_constants_(twin, self._provenance, plan, seed=self.seed)
            model.load_state_dict(twin.state_dict())
        surgery.apply_(model, plan, optimizer=optimizer, ema=ema)
        self._composition.add(plan)
        self._provenance = trace(capture(_twin(model), self.inputs))
        return {n: tuple(u) for n, u in found.removed.items()}


def _twin(model: nn.Module) -> nn.Module:
    """A copy on the CPU to try things on; the model itself stays where it is, in training mode."""
    return copy.deepcopy(model).cpu().eval()
