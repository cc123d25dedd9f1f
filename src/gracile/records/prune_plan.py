"""What structured pruning removes: names and kept indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class ParamSlice:
    """Keep ``keep`` (sorted indices) of the ``size`` entries of axis ``axis`` of ``param``.

    Where a plan widens, indices stand several times, copies of a channel's entries behind each other.
    """

    param: str
    axis: int
    size: int
    keep: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class AttributeEdit:
    """Set ``module.attribute`` from ``old`` to ``new``; ``module`` is a dotted name."""

    module: str
    attribute: str
    old: int | tuple[int, ...]
    new: int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Rewire:
    """A part that is hung on ``module`` (a dotted name) for the sake of ``layer``; see :mod:`gracile.nn`.

    Of ``size`` channels, as they are before the plan is applied, ``keep`` stay: "scatter" puts them back into
    the full width behind the module, "gather" picks them before it, "mask" silences the others. "border" is a
    map with ``ends``; ``constant`` says that a scatter adds one.
    """

    layer: str
    module: str
    kind: Literal["scatter", "gather", "mask", "border"]
    size: int = 0
    keep: tuple[int, ...] = ()
    ends: tuple[tuple[int, int], ...] = ()
    constant: bool = False

    @property
    def group(self) -> str:
        """Name of the group that it cuts off: outputs go by the layer's name, inputs have ``:in`` behind."""
        return f"{self.layer}:in" if self.kind == "gather" else self.layer


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """One group of channels that go together: of ``units`` units, ``keep`` stay."""

    name: str
    units: int
    keep: tuple[int, ...]
    members: tuple[str, ...] = ()

    @property
    def removed(self) -> tuple[int, ...]:
        """Indices of the units that go."""
        kept = set(self.keep)
        return tuple(i for i in range(self.units) if i not in kept)


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """A structured pruning: groups (for people), slices and attribute edits (what is applied).

    ``macs_*`` and ``params_*`` are estimates by formula.
    """

    groups: tuple[GroupPlan, ...]
    slices: tuple[ParamSlice, ...]
    attributes: tuple[AttributeEdit, ...] = ()
    rewires: tuple[Rewire, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    criterion: str = ""
    budget: str = ""
    macs_before: int = 0
    macs_after: int = 0
    params_before: int = 0
    params_after: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.criterion}, {self.budget}: MACs {self.macs_before:,} -> {self.macs_after:,}, "
            f"params {self.params_before:,} -> {self.params_after:,}"
        ]
        lines += [f"  {g.name}: keep {len(g.keep)} of {g.units}" for g in self.groups]
        lines += [f"  left alone {s.where}: {s.why}" for s in self.skipped]
        return "\n".join(lines)
