"""Remove whole residual branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from gracile.records import BranchPlan, count_text, from_plain, to_plain

from ..schema import Step
from .budgets import SharesPart

if TYPE_CHECKING:
    from torch import nn

    from gracile.prune import Branches, Macs, Params

    from ..state import Bench, Outcome, State


class PruneDepthStep(SharesPart, Step):
    """Remove residual branches, those first whose loss moves the outputs least for what they cost."""

    structural = True

    step: Literal["prune_depth"] = "prune_depth"
    branches: int | None = Field(default=None, ge=1)
    """How many go; or ``macs``, or ``params``."""
    cost: Literal["macs", "milliseconds"] = "macs"
    """What a branch's effect is divided by: its multiply-adds, or its time measured in ``measure_on``."""
    measure_on: Literal["ort", "openvino"] = "ort"
    """Runtime for ``cost: milliseconds``."""
    measure_batch: int = Field(default=32, ge=1)
    """Batch size for ``cost: milliseconds``."""
    calibration: int = Field(default=256, ge=1)
    """Unlabelled training images to judge branches by and to estimate batch-norm statistics with."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [n for n in ("branches", "macs", "params") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"one of branches, macs, params (given: {', '.join(given) or 'none'})")
        return self

    def run(self, state: State, bench: Bench) -> Outcome:
        """Choose branches and take them out; each removal was proved on the model when it was found."""
        from dataclasses import replace

        from gracile import prune, surgery

        from ..latency import branch_times
        from ..state import Change, Outcome

        images = bench.calibration(self.calibration)
        cost_of = None
        if self.cost == "milliseconds":
            cost_of = branch_times(state, bench, runtime=self.measure_on, batch=self.measure_batch)
        plan = prune.plan_branches(
            state.model,
            bench.inputs,
            budget=self.budget(),
            calibration=images,
            cost_of=cost_of,
            on_try=lambda done, total: bench.tick("trying branches", done, total),
        )
        proof = surgery.prove_removal(state.model, bench.inputs, plan.removed, seed=bench.seed)
        surgery.require((proof,))
        model = prune.remove_branches(state.model, plan, calibration=images)
        masks = None if state.masks is None else state.masks.only(model.state_dict())
        state = replace(state, masks=masks if masks and masks.masks else None)
        return Outcome(
            state=state.changed(model, Change(kind=self.step, plan=to_plain(plan))),
            summary=f"{len(plan.removed)} of {len(plan.removed) + len(plan.kept)} branches removed, "
            f"multiply-adds {count_text(plan.macs_before)} -> {count_text(plan.macs_after)}, "
            f"parameters {count_text(plan.params_before)} -> {count_text(plan.params_after)}",
            detail={
                "removed": [branch.name for branch in plan.removed],
                "divergence": list(plan.divergence),
                "images": len(images),
            },
            skips=plan.skipped,
            proofs=(proof,),
        )

    def budget(self) -> Branches | Macs | Params:
        """The budget as the library's own object."""
        from gracile import prune

        if self.branches is not None:
            return prune.Branches(count=self.branches)
        share = self.share()
        assert share is not None  # one of them is given
        return share

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Take the branches out of ``model``."""
        from gracile import surgery

        return surgery.remove_branches_(model, from_plain(BranchPlan, plan).removed)
