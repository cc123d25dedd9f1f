"""Several removals, one after another, as one plan for the model as it was before the first."""

from __future__ import annotations

from collections.abc import Mapping

from gracile.graph import Provenance
from gracile.records import AttributeEdit, GroupPlan, ParamSlice, PrunePlan, Skipped


class Composition:
    """Collects plans, each made for what the one before left.

    Args:
        provenance: The traced graph of the model before the first removal.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gracile.graph import capture, trace
        >>> net = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1))
        >>> both = Composition(trace(capture(net, (torch.zeros(1, 1),))))
        >>> for size, keep in ((3, (0, 2)), (2, (1,))):
        ...     cut = ParamSlice(param="1.weight", axis=1, size=size, keep=keep)
        ...     both.add(PrunePlan(groups=(), slices=(cut,)))
        >>> [(s.size, s.keep) for s in both.plan().slices]
        [(3, (2,))]
    """

    def __init__(self, provenance: Provenance) -> None:
        self.provenance = provenance
        self._slices: dict[tuple[str, int], ParamSlice] = {}
        self._edits: dict[tuple[str, str], AttributeEdit] = {}

    def add(self, plan: PrunePlan) -> None:
        """Take in the next removal."""
        for new in plan.slices:
            old = self._slices.get((new.param, new.axis))
            kept = new.keep if old is None else tuple(old.keep[i] for i in new.keep)
            size = new.size if old is None else old.size
            self._slices[new.param, new.axis] = ParamSlice(
                param=new.param, axis=new.axis, size=size, keep=kept
            )
        for edit in plan.attributes:
            first = self._edits.get((edit.module, edit.attribute), edit)
            self._edits[edit.module, edit.attribute] = AttributeEdit(
                module=edit.module, attribute=edit.attribute, old=first.old, new=edit.new
            )

    def plan(self, *, criterion: str = "", budget: str = "", skipped: tuple[Skipped, ...] = ()) -> PrunePlan:
        """All removals so far as one plan, with costs by formula before and after."""
        groups = tuple(self._group(name) for name in (g.name for g in self.provenance.groups))
        before = self.provenance.cost()
        after = self.provenance.cost({g.name: g.removed for g in groups if g.removed})
        return PrunePlan(
            groups=groups,
            slices=tuple(self._slices.values()),
            attributes=tuple(self._edits.values()),
            skipped=skipped,
            criterion=criterion,
            budget=budget,
            macs_before=before.macs,
            macs_after=after.macs,
            params_before=before.params,
            params_after=after.params,
        )

    def _group(self, name: str) -> GroupPlan:
        """A unit stays when the first of its positions that was cut at all stays."""
        group = self.provenance.group(name)
        keeps: Mapping[tuple[str, int], ParamSlice] = self._slices
        cut = next((s for s in group.slots if (s.param, s.axis) in keeps), None)
        kept = tuple(range(group.units))
        if cut is not None:
            stays = set(keeps[cut.param, cut.axis].keep)
            kept = tuple(u for u in kept if int(cut.index[u].flat[0]) in stays)
        return GroupPlan(name=name, units=group.units, keep=kept, members=group.members)
