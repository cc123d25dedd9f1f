"""Remove channels until a budget is met, refit what reads them, and prove the surgery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gracile.errors import BadArgument
from gracile.records import PrunePlan, SensitivityTable, count_text, from_json, from_plain, to_plain

from ..schema import Step
from .budgets import BudgetPart

if TYPE_CHECKING:
    from torch import nn

    from gracile.prune import Budget, Criterion
    from gracile.records import LatencyTable

    from ..state import Bench, Outcome, State


Choice = Literal["coupled", "zero", "selective"]
CURVES = "sensitivity.json"
"""The latest sensitivity analysis, in the run's folder."""


class ChannelsPart(BudgetPart):
    """How much is kept or removed: exactly one of the fields, or ``milliseconds``, alone or with ``macs``."""

    per_layer: float | None = Field(default=None, gt=0, lt=1)
    """Share of the channels to remove from every group."""
    everywhere: float | None = Field(default=None, gt=0, lt=1)
    """Share of all channels to remove, the lowest scores of the whole model first."""
    milliseconds: float | None = Field(default=None, gt=0, le=1)
    """Share of the int8 model's time on ``measure_on`` to keep: each layer is timed at eighths of its width,
    and widths are chosen among those."""

    @classmethod
    def pairs(cls) -> tuple[set[str], ...]:
        """Time may be limited together with multiply-adds."""
        return ({"macs", "milliseconds"},)

    def value(self, table: LatencyTable | None = None) -> Budget:
        """The budget as the library's own object; ``table`` for one in milliseconds."""
        from gracile import prune

        if self.milliseconds is not None:
            assert table is not None
            return prune.Milliseconds(fraction_kept=self.milliseconds, table=table, macs=self.macs or 1.0)
        if self.per_layer is not None:
            return prune.PerLayer(ratio=self.per_layer)
        if self.everywhere is not None:
            return prune.Global(ratio=self.everywhere)
        cost = self.cost()
        assert cost is not None  # one of them is given
        return cost


class PruneStep(Step):
    """Remove whole channels, physically."""

    structural = True

    step: Literal["prune"] = "prune"
    criterion: Literal[
        "random",
        "l1",
        "l2",
        "lp",
        "geometric_median",
        "similarity",
        "bn_scale",
        "activation",
        "apoz",
        "taylor",
        "taylor_weights",
        "fisher",
        "obd",
        "singe",
        "reconstruction",
        "sensitivity",
    ] = "l1"
    """How the channels of a group are ranked; the lowest go."""
    budget: ChannelsPart
    leave: tuple[str, ...] = ("first", "last")
    """Layers left alone: ``first``, ``last`` or dotted names."""
    round_to: int = Field(default=1, ge=1)
    """Keep a multiple of so many channels in every group."""
    choose_round_to: tuple[int, ...] = ()
    """Multiples to try: each is pruned under the same budget, quantized, exported and timed on
    ``measure_on``; the fastest is taken. Overrides ``round_to``."""
    measure_on: Literal["ort", "openvino"] = "ort"
    """Runtime that ``choose_round_to``, ``choose_trunk`` and a budget in milliseconds time."""
    measure_batch: int = Field(default=32, ge=1)
    """Batch size that ``choose_round_to``, ``choose_trunk`` and a budget in milliseconds time."""
    trunk: Choice | dict[str, Choice] = "coupled"
    """How residual trunks are pruned, for all branches or by patterns of layer names: what is added goes
    together (``coupled``), branches silence channels (``zero``), or branches compute, and readers read, a
    choice of the trunk's channels (``selective``)."""
    choose_trunk: tuple[Choice, ...] = ()
    """Choices to try for all branches, timed like ``choose_round_to``, alone or together with it: whether
    moving channels costs more than it saves is measured. Overrides ``trunk``."""
    calibration: int = Field(default=512, ge=1)
    """Training images for criteria that look at data, for reconstruction and batch-norm statistics. Only
    criteria that differentiate the loss use their labels: taylor, taylor_weights, fisher, obd, singe."""
    carry_constants: bool | Literal["nearest", "exact"] = "nearest"
    """Carry the constant that a removed channel still emits into the next bias; ``exact`` adds a map where
    zero padding makes it differ near borders."""
    reconstruct: bool | tuple[Literal["conv", "linear", "grouped", "transposed"], ...] = True
    """Refit each consumer of removed channels by least squares, or only the kinds named."""
    reestimate_bn: bool = True
    """Estimate batch-norm statistics again afterwards."""
    reset: bool = False
    """Give the narrow network new random weights: the baseline that trains the same architecture from
    scratch. With a norm as the criterion and ``budget: {macs: ...}``, it is the uniformly narrowed
    network."""

    def check(self) -> None:
        """Refuse what would be found out only after every width was timed."""
        if self.budget.milliseconds is None:
            return
        for name in ("choose_round_to", "choose_trunk"):
            if chosen := getattr(self, name):
                raise BadArgument(
                    name, wanted="to be empty beside a budget in milliseconds",
                    found=f"{list(chosen)}", do="Leave one of the two out.",
                )  # fmt: skip
        if not self.scorer().marginal:
            raise BadArgument(
                "criterion", wanted="scores that add up between groups, for a budget in milliseconds",
                found=f"{self.criterion}, which only ranks within a group",
                do="Choose reconstruction or sensitivity.",
            )  # fmt: skip

    def run(self, state: State, bench: Bench) -> Outcome:
        """Choose widths, prove the surgery, remove the channels, refit what reads them."""
        from dataclasses import replace

        from gracile import prune, surgery

        from ..state import Change, Outcome
        from ..widths import choose

        images = bench.calibration(self.calibration)
        widths: tuple[dict[str, Any], ...] = ()
        table = None
        if self.budget.milliseconds is not None:
            plan, table = self.plan_in_time(state, bench)
        elif self.choose_round_to or self.choose_trunk:
            plan, widths = choose(self, state, bench)
        else:
            plan = self.plan(state, bench)
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
        plan = surgery.with_parts(plan, model)
        if self.reset:
            model = prune.fresh(surgery.apply(state.model, plan), bench.seed)
        after = state.changed(model, Change(kind="prune", plan=to_plain(plan)))
        if state.masks is not None:
            masks = prune.narrow_masks(state.masks, plan.slices)
            after = replace(after, model=prune.apply_masks_(model, masks), masks=masks)
        return Outcome(
            state=after,
            summary=f"{plan.criterion}, multiply-adds {count_text(plan.macs_before)} -> "
            f"{count_text(plan.macs_after)}, parameters {count_text(plan.params_before)} -> "
            f"{count_text(plan.params_after)}",
            detail={
                "widths": list(widths),
                "images": len(images),
                "latency": None if table is None else to_plain(table),
                "sensitivity": self.curves(bench),
            },
            skips=plan.skipped,
            proofs=proofs,
        )

    def scorer(self, bench: Bench | None = None) -> Criterion:
        """The criterion as the library's own object; a sensitivity analysis is kept in the run's folder."""
        from gracile import prune

        if self.criterion == "sensitivity" and bench is not None:
            return prune.Sensitivity(cache=bench.out / CURVES)
        return prune.CRITERIA[self.criterion]()

    def curves(self, bench: Bench) -> dict[str, Any] | None:
        """The sensitivity analysis that this step went by, as plain data."""
        if self.criterion != "sensitivity":
            return None
        table = from_json(SensitivityTable, (bench.out / CURVES).read_bytes())
        return dict(to_plain(table))

    def plan_in_time(self, state: State, bench: Bench) -> tuple[PrunePlan, LatencyTable]:
        """Measure what widths cost, and choose among them."""
        from gracile import prune

        from ..latency import width_times

        criterion = prune.Remembered(self.scorer(bench))
        table = width_times(
            state,
            bench,
            lambda budget: self.plan(state, bench, 1, criterion, budget),
            runtime=self.measure_on,
            batch=self.measure_batch,
        )
        return self.plan(state, bench, None, criterion, self.budget.value(table)), table

    def plan(
        self,
        state: State,
        bench: Bench,
        round_to: int | None = None,
        criterion: Criterion | None = None,
        budget: Budget | None = None,
        trunk: Choice | None = None,
    ) -> PrunePlan:
        """Which channels stay; the arguments replace what the recipe says."""
        from gracile import prune

        scorer = criterion or self.scorer(bench)
        images, labels = bench.labelled(self.calibration)
        return prune.plan(
            state.model,
            bench.inputs,
            criterion=scorer,
            budget=budget or self.budget.value(),
            leave=self.leave,
            round_to=round_to or self.round_to,
            calibration=images,
            labelled=(images, labels) if scorer.needs_labels else None,
            trunk=trunk or self.trunk,
            seed=bench.seed,
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the widths that the pruning left."""
        from gracile import surgery

        return surgery.apply_(model, from_plain(PrunePlan, plan))
