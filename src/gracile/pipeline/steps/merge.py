"""Make near-identical channels one, with what they give kept in what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from gracile.records import PrunePlan, count_text, from_plain, to_plain

from ..schema import Step
from .budgets import SharesPart

if TYPE_CHECKING:
    from torch import nn

    from ..state import Bench, Outcome, State


class MergeStep(SharesPart, Step):
    """Merge channels by similarity, across residual branches too: the nearest until the share is met."""

    structural = True
    needs_unmasked = True

    step: Literal["merge"] = "merge"
    tolerance: float = Field(default=1e-3, ge=0)
    """How far merged channels may be apart, relative to the mean norm of each layer's rows; unused with a
    budget."""
    leave: tuple[str, ...] = ("first", "last")
    """Layers left alone: ``first``, ``last``, dotted names or patterns."""
    round_to: int = Field(default=1, ge=1)
    """Keep a multiple of so many channels in every group."""
    calibration: int = Field(default=0, ge=0)
    """Unlabelled training images to refit the layers behind with; 0 needs no data and refits nothing."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.macs is not None and self.params is not None:
            raise ValueError("one of macs and params, or neither")
        return self

    def run(self, state: State, bench: Bench) -> Outcome:
        """Merge, prove that the narrow model is the one with means, refit."""
        from gracile import prune, surgery

        from ..state import Change, Outcome

        state.refuse_masks(self.step)
        merged = prune.merge(
            state.model, bench.inputs, budget=self.share(), tolerance=self.tolerance, leave=self.leave,
            round_to=self.round_to, seed=bench.seed,
            calibration=bench.calibration(self.calibration) if self.calibration else None,
        )  # fmt: skip
        surgery.require((merged.proof,))
        plan = surgery.with_parts(merged.plan, merged.model)
        return Outcome(
            state=state.changed(merged.model, Change(kind=self.step, plan=to_plain(plan))),
            summary=f"{merged.proof.detail}, multiply-adds {count_text(plan.macs_before)} -> "
            f"{count_text(plan.macs_after)}, parameters {count_text(plan.params_before)} -> "
            f"{count_text(plan.params_after)}",
            detail={
                "clusters": {
                    name: [list(units) for units in found] for name, found in merged.clusters.items()
                },
                "images": self.calibration,
            },
            skips=plan.skipped,
            proofs=(merged.proof,),
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the widths that the merging left."""
        from gracile import surgery

        return surgery.apply_(model, from_plain(PrunePlan, plan))
