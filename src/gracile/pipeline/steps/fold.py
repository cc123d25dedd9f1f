"""Fold normalisations into the layers before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gracile.records import FoldPlan, from_plain, to_plain

from ..schema import Step

if TYPE_CHECKING:
    from torch import nn

    from ..state import Bench, Outcome, State


class FoldStep(Step):
    """Fold batch norm into convolutions and linear layers, exactly."""

    step: Literal["fold"] = "fold"
    everywhere: bool = True
    """Also norms that do not stand right behind a layer: through sums, concatenations, means and the like."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Plan and apply the folds on ``state.model``."""
        from gracile import fold

        from ..state import Change, Outcome

        plan = fold.plan(state.model, bench.inputs, everywhere=self.everywhere, seed=bench.seed)
        model = fold.apply(state.model, plan)
        data = to_plain(plan)
        return Outcome(
            state=state.changed(model, Change(kind="fold", plan=data)),
            summary=f"{len(plan.norms)} batch norms folded, {len(plan.skipped)} left",
            detail={"folded": len(plan.norms)},
            skips=plan.skipped,
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the shape that the folds left."""
        from gracile import fold

        return fold.apply_structure(model, from_plain(FoldPlan, plan))
