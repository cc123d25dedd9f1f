"""Remove channels and factor layers under one budget, as much of each as held-out outputs say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gracile.errors import BadArgument
from gracile.records import count_text, to_plain

from ..schema import Step
from .budgets import BudgetPart

if TYPE_CHECKING:
    from torch import Tensor

    from gracile.records import JointPlan

    from ..state import Bench, Outcome, State


class JointStep(Step):
    """Prune, factor, or leave dense, layer by layer under one budget."""

    structural = True
    needs_unmasked = True

    step: Literal["joint"] = "joint"
    budget: BudgetPart
    criterion: Literal["reconstruction", "l1", "l2", "random"] = "reconstruction"
    """How channels are ranked."""
    forms: tuple[Literal["svd", "spatial", "tucker", "cp"], ...] = ("svd", "spatial", "tucker")
    """Ways to factor that may be chosen, layer by layer."""
    leave: tuple[str, ...] = ("first", "last")
    """Layers left as they are: ``first``, ``last``, dotted names or patterns."""
    round_to: int = Field(default=1, ge=1)
    """Keep a multiple of so many channels in every group."""
    shares: tuple[float, ...] = (1.0, 0.85, 0.7, 0.5, 0.25, 0.0)
    """Parts of the saving that pruning brings, tried from the largest down; 1 is pruning alone."""
    held_out: float = Field(default=0.25, gt=0, lt=1)
    """Part of the calibration images that judges the trials and is not fitted to."""
    pays: Literal["milliseconds", "macs"] = "macs"
    """A layer is factored only where this falls: its time measured in ``measure_on``, or multiply-adds."""
    measure_on: Literal["ort", "openvino"] = "ort"
    """Runtime that layers are timed in."""
    measure_batch: int = Field(default=32, ge=1)
    """Batch size that layers are timed with."""
    measure_as: Literal["float", "int8"] = "float"
    """Time layers in float, or quantized as a ``quantize`` step behind this one would leave them."""
    calibration: int = Field(default=512, ge=8)
    """Unlabelled training images."""

    def check(self) -> None:
        """Refuse what would be found out only after channels were ranked."""
        if not self.forms:
            raise BadArgument("forms", wanted="at least one", found="none", do="Or use the step `prune`.")
        if not self.shares or not all(0 <= share <= 1 for share in self.shares):
            raise BadArgument("shares", wanted="at least one part from 0 to 1", found=f"{list(self.shares)}")

    def run(self, state: State, bench: Bench) -> Outcome:
        """Try the parts, carry out the one whose outputs are nearest, prove what was done."""
        from gracile import joint, surgery

        from ..state import Change, Outcome

        state.refuse_masks(self.step)
        images = bench.calibration(self.calibration)
        plan = self.plan(state, bench, images)
        bench.tick("fitting", 2, 4)
        model = joint.apply(state.model, plan, inputs=bench.inputs, calibration=images, seed=bench.seed)
        bench.tick("proofs", 3, 4)
        proofs = joint.prove(state.model, model, plan, bench.inputs, seed=bench.seed)
        surgery.require(proofs)
        after = state
        if plan.prune.slices:
            removed = surgery.with_parts(plan.prune, model)
            after = after.changed(model, Change(kind="prune", plan=to_plain(removed)))
        if plan.decompose.layers:
            after = after.changed(model, Change(kind="decompose", plan=to_plain(plan.decompose)))
        trials = to_plain(plan)["trials"]
        return Outcome(
            state=after,
            summary=f"{plan.by_pruning:.0%} of the saving by pruning, {len(plan.decompose.layers)} layers "
            f"factored, multiply-adds {count_text(plan.macs_before)} -> {count_text(plan.macs_after)}, "
            f"parameters {count_text(plan.params_before)} -> {count_text(plan.params_after)}",
            detail={
                "trials": trials, "by_pruning": plan.by_pruning, "images": len(images),
                "layers": to_plain(plan.decompose)["layers"],
            },
            skips=(*plan.prune.skipped, *plan.decompose.skipped),
            proofs=proofs,
        )  # fmt: skip

    def plan(self, state: State, bench: Bench, images: Tensor) -> JointPlan:
        """Which channels go and which layers are factored."""
        from gracile import decompose, joint, prune

        from ..latency import layer_timer

        budget = self.budget.cost()
        assert budget is not None  # no other field says it
        timer = None
        if self.pays == "milliseconds":
            timer = layer_timer(
                bench, runtime=self.measure_on, batch=self.measure_batch, int8=self.measure_as == "int8"
            )
        return joint.plan(
            state.model, bench.inputs, budget=budget, calibration=images,
            criterion=prune.CRITERIA[self.criterion](),
            forms=tuple(decompose.BY_NAME[name] for name in self.forms), shares=self.shares,
            held_out=self.held_out, leave=self.leave, round_to=self.round_to, timer=timer, seed=bench.seed,
            on_try=lambda done, total: bench.tick("sharing out the budget", 2 * done / total, 4),
        )  # fmt: skip
