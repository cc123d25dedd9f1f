"""Make layers without an activation between them one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gracile.records import FusePlan, count_text, from_plain, to_plain

from ..schema import Step

if TYPE_CHECKING:
    from torch import nn

    from ..state import Bench, Outcome, State


class FuseStep(Step):
    """Fuse layers in a row, and layers that read the same and are added, exactly.

    Weights that layers compute from parameters alone become parameters, and modules that never run go.
    """

    needs_unmasked = True

    step: Literal["fuse"] = "fuse"
    always: bool = False
    """Also where the layer that comes of it has more multiply-adds than the two."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Find, try and carry out the fusions."""
        from gracile import fold, graph

        from ..state import Change, Outcome

        state.refuse_masks(self.step)
        before = graph.cost(state.model, bench.inputs)
        plan = fold.plan_fusions(state.model, bench.inputs, always=self.always, seed=bench.seed)
        model = fold.apply_fusions(state.model, plan)
        after = graph.cost(model, bench.inputs)
        return Outcome(
            state=state.changed(model, Change(kind=self.step, plan=to_plain(plan))),
            summary=f"{len(plan.fusions)} fusions, multiply-adds {count_text(before.macs)} -> "
            f"{count_text(after.macs)}, parameters {count_text(before.params)} -> {count_text(after.params)}",
            detail={
                "fusions": [f"{f.first} + {f.second}" for f in plan.fusions],
                "constants": [constant.layer for constant in plan.constants],
                "dead": list(plan.dead),
            },
            skips=plan.skipped,
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the layers that the fusions left."""
        from gracile import fold

        return fold.apply_fusions(model, from_plain(FusePlan, plan))
