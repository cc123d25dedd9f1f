"""Remove channels until a budget is met, refit what reads them, and prove the surgery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from gracile.records import PrunePlan, count_text, from_plain, to_plain

from ..schema import Part, Step

if TYPE_CHECKING:
    from torch import nn

    from gracile.prune import Budget, Criterion

    from ..state import Bench, Outcome, State


class BudgetPart(Part):
    """How much is kept or removed: exactly one of the fields."""

    macs: float | None = Field(default=None, gt=0, lt=1)
    """Share of the multiply-adds to keep."""
    params: float | None = Field(default=None, gt=0, lt=1)
    """Share of the parameters to keep."""
    per_layer: float | None = Field(default=None, gt=0, lt=1)
    """Share of the channels to remove from every group."""
    everywhere: float | None = Field(default=None, gt=0, lt=1)
    """Share of all channels to remove, the lowest scores of the whole model first."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"one of macs, params, per_layer, everywhere (given: {', '.join(given) or 'none'})"
            )
        return self

    def value(self) -> Budget:
        """The budget as the library's own object."""
        from gracile import prune

        if self.macs is not None:
            return prune.Macs(fraction_kept=self.macs)
        if self.params is not None:
            return prune.Params(fraction_kept=self.params)
        if self.per_layer is not None:
            return prune.PerLayer(ratio=self.per_layer)
        assert self.everywhere is not None  # one of them is given
        return prune.Global(ratio=self.everywhere)


class PruneStep(Step):
    """Remove whole channels, physically."""

    structural = True

    step: Literal["prune"] = "prune"
    criterion: Literal["random", "l1", "l2", "reconstruction"] = "l1"
    """How the channels of a group are ranked; the lowest go."""
    budget: BudgetPart
    leave: tuple[str, ...] = ("first", "last")
    """Layers left alone: ``first``, ``last`` or dotted names."""
    round_to: int = Field(default=1, ge=1)
    """Keep a multiple of so many channels in every group."""
    choose_round_to: tuple[int, ...] = ()
    """Multiples to try: each is pruned under the same budget, quantized, exported and timed on
    ``measure_on``; the fastest is taken. Overrides ``round_to``."""
    measure_on: Literal["ort", "openvino"] = "ort"
    """Runtime that ``choose_round_to`` times."""
    measure_batch: int = Field(default=32, ge=1)
    """Batch size that ``choose_round_to`` times."""
    trunk: Literal["coupled", "zero", "selective"] | dict[str, Literal["coupled", "zero", "selective"]] = (
        "coupled"
    )
    """How residual trunks are pruned, for all branches or by patterns of layer names: what is added goes
    together (``coupled``), branches silence channels (``zero``), or branches compute, and readers read, a
    choice of the trunk's channels (``selective``)."""
    calibration: int = Field(default=512, ge=1)
    """Unlabelled training images for reconstruction and batch-norm statistics."""
    carry_constants: bool | Literal["nearest", "exact"] = "nearest"
    """Carry the constant that a removed channel still emits into the next bias; ``exact`` adds a map where
    zero padding makes it differ near borders."""
    reconstruct: bool | tuple[Literal["conv", "linear", "grouped", "transposed"], ...] = True
    """Refit each consumer of removed channels by least squares, or only the kinds named."""
    reestimate_bn: bool = True
    """Estimate batch-norm statistics again afterwards."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Choose widths, prove the surgery, remove the channels, refit what reads them."""
        from gracile import prune, surgery

        from ..state import Change, Outcome
        from ..widths import choose

        images = bench.calibration(self.calibration)
        if self.choose_round_to:
            plan, widths = choose(self, state, bench)
        else:
            plan, widths = self.plan(state, bench), ()
        bench.tick("proofs", 1, 3)
        proofs = surgery.verify(state.model, bench.inputs, plan, seed=bench.seed)
        surgery.require(proofs)
        bench.tick("refitting", 2, 3)
        model = prune.apply(
            state.model,
            plan,
            inputs=bench.inputs,
            calibration=images,
            carry_constants=self.carry_constants,
            reconstruct=self.reconstruct,
            reestimate_bn=self.reestimate_bn,
            seed=bench.seed,
        )
        data = to_plain(surgery.with_parts(plan, model))
        return Outcome(
            state=state.changed(model, Change(kind="prune", plan=data)),
            summary=f"{plan.criterion}, multiply-adds {count_text(plan.macs_before)} -> "
            f"{count_text(plan.macs_after)}, parameters {count_text(plan.params_before)} -> "
            f"{count_text(plan.params_after)}",
            detail={"widths": list(widths), "images": len(images)},
            skips=plan.skipped,
            proofs=proofs,
        )

    def scorer(self) -> Criterion:
        """The criterion as the library's own object."""
        from gracile import prune

        return prune.CRITERIA[self.criterion]()

    def plan(
        self, state: State, bench: Bench, round_to: int | None = None, criterion: Criterion | None = None
    ) -> PrunePlan:
        """Which channels stay; ``round_to`` and ``criterion`` replace what the recipe says."""
        from gracile import prune

        return prune.plan(
            state.model,
            bench.inputs,
            criterion=criterion or self.scorer(),
            budget=self.budget.value(),
            leave=self.leave,
            round_to=round_to or self.round_to,
            calibration=bench.calibration(self.calibration),
            trunk=self.trunk,
            seed=bench.seed,
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the widths that the pruning left."""
        from gracile import surgery

        return surgery.apply_(model, from_plain(PrunePlan, plan))
