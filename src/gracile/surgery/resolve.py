"""Turn a wished removal into slices and attribute edits that run, freezing groups that cannot be carried out.

A constant in the user's ``forward`` that no longer fits shows as an error or as a wrong output. The groups
that meet at the place are then left whole and recorded as skipped, with the source line.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, fx, nn

from gracile.errors import CaptureError
from gracile.graph import Provenance, capture
from gracile.graph.rules import LITERAL, packet, shape_of
from gracile.records import AttributeEdit, ParamSlice, PrunePlan, Skipped

from .attributes import edits
from .slice import apply
from .verify import Stage, run

ROUNDS = 64


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A removal that runs and passes zero-then-remove, and what had to be left whole for that."""

    removed: Mapping[str, tuple[int, ...]]
    slices: tuple[ParamSlice, ...]
    attributes: tuple[AttributeEdit, ...]
    skipped: tuple[Skipped, ...]
    choice: Mapping[str, int] = field(default_factory=dict)


def probe(model: nn.Module, inputs: tuple[Tensor, ...], provenance: Provenance, seed: int = 0) -> Resolution:
    """Find the groups that cannot be carried out, by removing a random part of every group.

    Unequal parts show where code cuts a tensor at a place of its own.
    """
    draw = np.random.default_rng(seed)
    removed = {}
    for group in provenance.groups:
        count = int(draw.integers(max(1, group.units // 4), max(2, group.units // 2 + 1)))
        removed[group.name] = tuple(
            sorted(draw.permutation(group.units)[: min(count, group.units - 1)].tolist())
        )
    return resolve(model, inputs, provenance, removed, seed=seed)


def resolve(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    provenance: Provenance,
    removed: Mapping[str, Sequence[int]],
    *,
    choice: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Resolution:
    """Slices and attribute edits for ``removed``, minus the groups whose removal fails on the model itself.

    Args:
        model: The model; left as it was.
        inputs: Example inputs.
        provenance: Its traced graph.
        removed: Units to remove, by group name.
        choice: Attribute choices found by an earlier call.
        seed: Of the random inputs of the test.
    """
    left = {name: tuple(int(u) for u in units) for name, units in removed.items() if len(units)}
    chosen = dict(choice or {})
    skipped: list[Skipped] = []
    stage = Stage(model, inputs, seed)
    for _ in range(ROUNDS):
        attempt = _Attempt(model, provenance, left, chosen)
        fault = attempt.fault(stage)
        if fault is None:
            return Resolution(removed=left, slices=attempt.plan.slices, attributes=attempt.plan.attributes,
                              skipped=tuple(skipped), choice=chosen)  # fmt: skip
        if fault.kind and chosen.get(fault.kind, 0) < attempt.options(fault.kind):
            chosen[fault.kind] = chosen.get(fault.kind, 0) + 1
            continue
        blamed = fault.groups or _unfit(model, provenance, left, chosen, stage)
        for name in blamed or tuple(left):
            skipped.append(Skipped(name, fault.why, fault.source))
            del left[name]
    for name in left:
        skipped.append(Skipped(name, "the removal could not be carried out on the model", ""))
    return Resolution(removed={}, slices=(), attributes=(), skipped=tuple(skipped), choice=chosen)


def _unfit(
    model: nn.Module,
    provenance: Provenance,
    removed: Mapping[str, tuple[int, ...]],
    choice: Mapping[str, int],
    stage: Stage,
) -> tuple[str, ...]:
    """Groups to leave whole where no place can be blamed: halves are tried until what fails stands alone."""
    fit: dict[str, tuple[int, ...]] = {}

    def add(names: tuple[str, ...]) -> None:
        trial = fit | {n: removed[n] for n in names}
        if _Attempt(model, provenance, trial, choice).fault(stage) is None:
            fit.update(trial)
        elif len(names) > 1:
            add(names[: len(names) // 2])
            add(names[len(names) // 2 :])

    names = tuple(removed)
    add(names[: len(names) // 2])
    add(names[len(names) // 2 :])
    return tuple(n for n in names if n not in fit)


@dataclass(frozen=True)
class _Fault:
    groups: tuple[str, ...]
    why: str
    source: str
    kind: str = ""


class _Attempt:
    """One removal, carried out on a copy and tested."""

    def __init__(
        self,
        model: nn.Module,
        provenance: Provenance,
        removed: Mapping[str, tuple[int, ...]],
        choice: Mapping[str, int],
    ) -> None:
        self.model, self.provenance, self.removed = model, provenance, removed
        self.gone = provenance.gone(removed)
        self.attributes = edits(model, provenance, self.gone, dict(choice))
        self.plan = PrunePlan(
            groups=(),
            slices=provenance.slices(removed),
            attributes=self.attributes,
            rewires=provenance.rewires(removed),
        )

    def options(self, kind: str) -> int:
        """How many other choices of attributes a class has."""
        every = edits(self.model, self.provenance, self.gone)
        per_module: dict[tuple[str, object], int] = {}
        for e in every:
            if type(self.model.get_submodule(e.module)).__qualname__ == kind:
                per_module[e.module, e.old] = per_module.get((e.module, e.old), 0) + 1
        most = max(per_module.values(), default=0)
        return most if most > 1 else 0

    def fault(self, stage: Stage) -> _Fault | None:
        """Why the removal fails on the model, or None."""
        narrowed = apply(stage.model, self.plan)
        try:
            run(narrowed, stage.inputs)
        except Exception as error:
            return self._crash(narrowed, error)
        proof = stage.zero_then_remove(self.provenance, self.removed, self.plan)
        return None if proof.passed else self._mismatch(narrowed, stage.inputs)

    def _crash(self, narrowed: nn.Module, error: Exception) -> _Fault:
        """Groups at the innermost module that failed, and the user's line."""
        names = {id(m): n for n, m in narrowed.named_modules()}
        frames = list(traceback.walk_tb(error.__traceback__))
        places = [names[id(f.f_locals["self"])] for f, _ in frames if id(f.f_locals.get("self")) in names]
        lines = [(f.f_code.co_filename, line) for f, line in frames]
        own = [at for at in lines if "/torch/" not in at[0] and "/gracile/surgery/" not in at[0]] or lines
        file, line = own[-1]
        why = f"the model's own code fails without these channels: {type(error).__name__}: {error}"[:300]
        places.reverse()
        kind = self._choosable(narrowed, places[:2])
        return _Fault(self._blamed(places, f"{file}:{line}:"), why, f"{file}:{line}", kind)

    def _blamed(self, places: list[str], line: str) -> tuple[str, ...]:
        """Groups at the failing line; where it reshapes, at the same line of every module that runs it."""
        captured = self.provenance.captured
        calls = [n for n in captured.graph.nodes if n.op == "call_function"]
        there = [n for n in calls if captured.source(n).startswith(line)]
        for place in places:
            nodes = [n for n in calls if captured.module_of(n) == place]
            exact = [n for n in nodes if n in there]
            if exact and all(packet(n) in LITERAL for n in exact):
                exact = there
            for chosen in (exact, nodes):
                for hit in (self._groups_into(chosen), self._groups_at(chosen)):
                    if hit:
                        return hit
        return ()

    def _groups_at(self, nodes: list[fx.Node]) -> tuple[str, ...]:
        seen = {g for n in nodes for g in self.provenance.groups_at(n.name)}
        return tuple(g for g in self.removed if g in seen)

    def _groups_into(self, nodes: list[fx.Node]) -> tuple[str, ...]:
        """Groups of the activations (not the parameters) that go into ``nodes``."""
        return self._groups_at([at for n in nodes for at in n.all_input_nodes if at.op != "placeholder"])

    def _choosable(self, narrowed: nn.Module, places: list[str]) -> str:
        """Class of the failing module (or the one that called it) whose attributes allow another choice."""
        kinds = [type(narrowed.get_submodule(p)).__qualname__ for p in places]
        return next((k for k in kinds if self.options(k)), "")

    def _mismatch(self, narrowed: nn.Module, inputs: tuple[Tensor, ...]) -> _Fault:
        """Capture the narrowed model and find the first operation whose shape is not the expected one."""
        why = "the narrowed model computes something else"
        try:
            again = capture(narrowed, inputs)
        except CaptureError:
            return _Fault((), why, "")
        captured = self.provenance.captured
        old = [n for n in captured.graph.nodes if n.op == "call_function"]
        new = [n for n in again.graph.nodes if n.op == "call_function"]
        for a, b in zip(old, new, strict=False):
            kept = self.provenance.kept(a.name, self.gone)
            wanted = tuple(kept[i].size if i in kept else s for i, s in enumerate(shape_of(a)))
            if str(a.target) != str(b.target) or (shape_of(b) and wanted != shape_of(b)):
                hit = self._groups_into([a]) or self._groups_at([a])
                owner = captured.module_of(a)
                kind = self._choosable(narrowed, [owner, owner.rpartition(".")[0]])
                shapes = f"wanted shape {wanted}, found {shape_of(b)} in {b.target}"
                return _Fault(hit, f"{why}: {shapes}", captured.source(a), kind)
        return _Fault((), why, "")
