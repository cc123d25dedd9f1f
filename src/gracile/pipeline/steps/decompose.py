"""Write layers as several smaller ones, where that is cheaper or measured to be faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gracile.errors import BadArgument
from gracile.records import DecomposePlan, count_text, from_plain, to_plain

from ..schema import Step
from .budgets import BudgetPart

if TYPE_CHECKING:
    from torch import nn

    from gracile.decompose import Bytes, Energy, Macs, Milliseconds, Params

    from ..state import Bench, Outcome, State


class RanksPart(BudgetPart):
    """How far layers are factored: exactly one of the fields, ``weight_bits`` beside ``bytes`` aside."""

    energy: float | None = Field(default=None, gt=0, lt=1)
    """Share of each layer's output energy to keep."""
    milliseconds: float | None = Field(default=None, gt=0, le=1)
    """Share of the time of all layers that can be factored to keep, measured in ``measure_on``."""

    def value(self) -> Energy | Macs | Params | Bytes | Milliseconds:
        """The budget as the library's own object."""
        from gracile import decompose

        if self.energy is not None:
            return decompose.Energy(kept=self.energy)
        if self.milliseconds is not None:
            return decompose.Milliseconds(fraction_kept=self.milliseconds)
        cost = self.cost()
        assert cost is not None  # one of them is given
        return cost


class DecomposeStep(Step):
    """Factor convolutions and linear layers."""

    structural = True
    needs_unmasked = True

    step: Literal["decompose"] = "decompose"
    budget: RanksPart
    forms: tuple[Literal["svd", "spatial", "tucker", "cp"], ...] = ("svd", "spatial", "tucker")
    """Ways to factor that may be chosen, layer by layer."""
    leave: tuple[str, ...] = ("first", "last")
    """Layers left dense: ``first``, ``last`` or dotted names."""
    pays: Literal["milliseconds", "macs"] = "milliseconds"
    """A layer is factored only where this falls: its time measured in ``measure_on``, or multiply-adds."""
    measure_on: Literal["ort", "openvino"] = "ort"
    """Runtime that layers are timed in."""
    measure_batch: int = Field(default=32, ge=1)
    """Batch size that layers are timed with."""
    measure_as: Literal["float", "int8"] = "float"
    """Time layers in float, or quantized as a ``quantize`` step behind this one would leave them."""
    importance: Literal["equal", "sensitivity"] = "sensitivity"
    """Weigh layers' errors alike, or by what each alone does to the outputs."""
    calibration: int = Field(default=512, ge=0)
    """Unlabelled training images whose outputs are kept near; 0 keeps weights near instead."""

    def check(self) -> None:
        """Refuse what cannot be weighed."""
        if not self.forms:
            raise BadArgument("forms", wanted="at least one", found="none")
        if not self.calibration and self.importance == "sensitivity":
            raise BadArgument(
                "importance", wanted="equal, where no calibration images are used", found="sensitivity",
                do="Say importance: equal, or give calibration images.",
            )  # fmt: skip

    def run(self, state: State, bench: Bench) -> Outcome:
        """Choose ranks, factor, prove that the smaller layers compute what their factors say."""
        from gracile import decompose, surgery

        from ..latency import layer_timer
        from ..state import Change, Outcome

        state.refuse_masks(self.step)
        images = bench.calibration(self.calibration) if self.calibration else None
        forms = tuple(decompose.BY_NAME[name] for name in self.forms)
        importance = None
        if self.importance == "sensitivity" and images is not None:
            bench.tick("sensitivity", 0, 4)
            importance = decompose.sensitivity(
                state.model, bench.inputs, images, forms=forms, leave=self.leave, seed=bench.seed
            )
        bench.tick("choosing ranks", 1, 4)
        timer = None
        if self.pays == "milliseconds" or self.budget.milliseconds is not None:
            timer = layer_timer(
                bench, runtime=self.measure_on, batch=self.measure_batch, int8=self.measure_as == "int8"
            )
        plan = decompose.plan(
            state.model, bench.inputs, budget=self.budget.value(), forms=forms, calibration=images,
            importance=importance, leave=self.leave, timer=timer, seed=bench.seed,
        )  # fmt: skip
        bench.tick("factoring", 2, 4)
        model = decompose.apply(state.model, plan, inputs=bench.inputs, calibration=images, seed=bench.seed)
        bench.tick("proof", 3, 4)
        proof = decompose.prove(state.model, model, plan, bench.inputs, seed=bench.seed)
        surgery.require((proof,))
        data = to_plain(plan)
        return Outcome(
            state=state.changed(model, Change(kind=self.step, plan=data)),
            summary=f"{len(plan.layers)} layers factored, multiply-adds {count_text(plan.macs_before)} -> "
            f"{count_text(plan.macs_after)}, parameters {count_text(plan.params_before)} -> "
            f"{count_text(plan.params_after)}",
            detail={"layers": data["layers"], "importance": importance, "images": self.calibration},
            skips=plan.skipped,
            proofs=(proof,),
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the layers that the decomposition left."""
        from gracile import decompose

        return decompose.apply_structure(model, from_plain(DecomposePlan, plan))
