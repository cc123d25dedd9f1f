"""Set weights to zero and keep them there; shapes stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..schema import Step
from .masking import MaskPart

if TYPE_CHECKING:
    from ..state import Bench, Outcome, State


class SparsifyStep(MaskPart, Step):
    """Mask weights: single ones, kernels, channels, blocks, or n of every m."""

    step: Literal["sparsify"] = "sparsify"
    reset: bool = False
    """Give the weights that stay new random values: the baseline that trains the sparse network from
    scratch."""

    @property
    def makes_masks(self) -> bool:
        """It does nothing else."""
        return True

    def check(self) -> None:
        """Refuse what the library refuses."""
        self.check_masks()

    def run(self, state: State, bench: Bench) -> Outcome:
        """Choose the masks and write the zeros; training steps behind keep them."""
        from dataclasses import replace

        from gracile import prune

        from ..state import Outcome

        plan = prune.mask_plan(
            state.model,
            bench.inputs,
            granularity=self.kind(),
            criterion=self.ranking(),
            sparsity=self.sparsity,
            scope=self.scope,
            leave=self.leave,
            gradients=self.gradients(state.model, bench),
            previous=state.masks,
            seed=bench.seed,
        )
        plan = prune.join_masks(state.masks, plan)
        model = prune.fresh(state.model, bench.seed) if self.reset else state.model
        return Outcome(
            state=replace(state, model=prune.apply_masks(model, plan), masks=plan),
            summary=f"{plan.of_all - plan.kept:,} of {plan.of_all:,} weights are zero "
            f"({100 * plan.found_sparsity:.1f} %), {self.kind().text}, {self.criterion}",
            detail={"zeros": plan.by_layer},
            skips=plan.skipped,
        )
