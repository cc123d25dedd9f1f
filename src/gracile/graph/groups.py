"""Groups of channels that go together, as index arrays into parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from gracile.records import Skipped

ROLES = ("along", "write", "read")


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where a group appears: positions on one axis of one parameter.

    ``role`` is "write" (output axis of a weight), "read" (input axis of a weight that consumes the channels)
    or "along" (biases, normalisation parameters and statistics, depthwise weights). ``index`` has shape
    (units, k): unit ``u`` holds the ``k`` positions ``index[u]``.
    """

    param: str
    axis: int
    role: str
    index: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Group:
    """``units`` interchangeable units; each can go alone, and then goes from every slot."""

    name: str
    units: int
    slots: tuple[Slot, ...]
    components: np.ndarray = field(repr=False)

    @property
    def writers(self) -> tuple[Slot, ...]:
        """Slots on output axes of weights."""
        return tuple(s for s in self.slots if s.role == "write")

    @property
    def readers(self) -> tuple[Slot, ...]:
        """Slots on input axes of weights."""
        return tuple(s for s in self.slots if s.role == "read")

    @property
    def scored(self) -> tuple[Slot, ...]:
        """Slots that norms look at: those that write it, or read it where the group is a layer's inputs."""
        return self.writers or self.readers

    @property
    def members(self) -> tuple[str, ...]:
        """``parameter:axis`` of every slot."""
        return tuple(f"{s.param}:{s.axis}" for s in self.slots)


def build_groups(
    by_param: Mapping[tuple[str, int], np.ndarray],
    labels: Mapping[tuple[str, int], np.ndarray],
    roles: np.ndarray,
    frozen: np.ndarray,
    consumed: np.ndarray,
    gathered: Collection[str] = (),
) -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    """Collect components into groups of like units (same slots, same number of positions in each).

    Args:
        by_param: Component of every position, per (parameter, axis).
        labels: Label of every position, per (parameter, axis).
        roles: Role number (index into ``ROLES``) of every label.
        frozen: Mask over components.
        consumed: Mask over components that something other than weights takes in.
        gathered: Weights whose inputs form groups of their own.

    Returns:
        Groups, and what was left out because nothing reads it or it is one unit.
    """
    keys = list(by_param)
    parts = [np.flatnonzero(~frozen[c]) for c in by_param.values()]
    comp = np.concatenate(
        [by_param[k][p] for k, p in zip(keys, parts, strict=True)] or [np.zeros(0, np.int64)]
    )
    slot = np.concatenate([np.full(p.size, i) for i, p in enumerate(parts)] or [np.zeros(0, np.int64)])
    pos = np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
    order = np.lexsort((pos, slot, comp))
    comp, slot, pos = comp[order], slot[order], pos[order]
    starts = np.flatnonzero(np.r_[True, comp[1:] != comp[:-1]]) if comp.size else np.zeros(0, np.int64)
    kinds: dict[bytes, list[int]] = {}
    ends = np.append(starts[1:], comp.size)[: starts.size]
    for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
        kinds.setdefault(slot[a:b].tobytes(), []).append(i)
    groups: list[Group] = []
    skipped: list[Skipped] = []
    names: dict[str, int] = {}
    for units in kinds.values():
        a, b = starts[units[0]], ends[units[0]]
        slots = []
        table = np.stack([pos[starts[u] : ends[u]] for u in units])
        for s in np.unique(slot[a:b]):
            key = keys[int(s)]
            column = slot[a:b] == s
            index = table[:, column]
            role = ROLES[int(roles[labels[key][index.reshape(-1)]].max(initial=0))]
            slots.append(Slot(param=key[0], axis=key[1], role=role, index=index))
        group = Group(name="", units=len(units), slots=tuple(slots), components=comp[starts[units]])
        if not group.writers and [s.param for s in group.readers if s.param in gathered]:
            name = f"{group.readers[0].param.removesuffix('.weight')}:in"
            groups.append(Group(name=name, units=group.units, slots=group.slots, components=group.components))
        _file(group, bool(consumed[group.components].all()), groups, skipped, names)
    return tuple(groups), tuple(skipped)


def _file(
    group: Group, consumed: bool, groups: list[Group], skipped: list[Skipped], names: dict[str, int]
) -> None:
    if not group.writers:
        return
    name = group.writers[0].param.removesuffix(".weight")
    if not group.readers and not consumed:
        skipped.append(Skipped(name, f"no layer reads these {group.units} channels"))
    elif group.units == 1:
        skipped.append(Skipped(name, "its channels form one unit, which cannot go whole"))
    else:
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        groups.append(Group(name=unique, units=group.units, slots=group.slots, components=group.components))
