"""Static post-training quantization from a few unlabelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from gracile.errors import BadArgument
from gracile.records import to_plain

from ..schema import Step

if TYPE_CHECKING:
    from gracile.quantize import Rounding, Scheme
    from gracile.records import QuantPlan

    from ..state import Bench, Outcome, State


RescueName = Literal[
    "equalize",
    "factorize",
    "spiq",
    "absorb_bias",
    "split_weights",
    "split_activations",
    "expand",
    "expand_sparse",
]


class BitsOfLayers(BaseModel):
    """Bits of some layers; what is not given stays as it is elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    weights: int | None = Field(default=None, ge=2, le=8)
    activations: int | None = Field(default=None, ge=2, le=8)


class QuantizeStep(Step):
    """Quantize weights and activations to integers."""

    quantizes: ClassVar[bool] = True

    step: Literal["quantize"] = "quantize"
    weight_bits: int = Field(default=8, ge=2, le=8)
    activation_bits: int = Field(default=8, ge=2, le=8)
    sum_bits: int = Field(default=8, ge=2, le=8)
    """Bits of activations that only sums, averages and outputs read."""
    ends: BitsOfLayers = BitsOfLayers(weights=8, activations=8)
    """Bits of the first and last layers; ``{}`` for no exception."""
    layers: dict[str, BitsOfLayers] = Field(default_factory=dict)
    """Bits by layer name or pattern; the last that fits counts."""
    weight_granularity: Literal["per_channel", "per_tensor", "per_group"] = "per_channel"
    group_size: int = Field(default=32, ge=1)
    """Input channels that share a scale, for ``per_group``."""
    weight_range: Literal["minmax", "moving_average", "percentile", "mse", "kl", "aciq"] = "mse"
    """How the range of a weight is chosen."""
    activation_range: Literal[
        "minmax", "moving_average", "percentile", "mse", "kl", "aciq", "cross_entropy"
    ] = "mse"
    """How the range of an activation is chosen."""
    weight_symmetric: bool = True
    activation_symmetric: bool = False
    rounding: Literal["nearest", "stochastic", "least_squares", "adaround", "blocks", "squant"] | None = None
    """How weights become integers; empty: ``blocks`` where anything has fewer than 8 bits, ``squant`` (errors
    cancel within kernels and channels) where there are no calibration images, else ``least_squares``."""
    iterations: int | None = Field(default=None, ge=10)
    """Steps of learning for each layer (``adaround``) or block (``blocks``); empty: the rounding's own."""
    dynamic: bool = False
    """Find ranges of activations in each batch at run time."""
    reduce_range: bool | None = None
    """Weights of 8 bits use half their range, so that x86 processors without VNNI cannot overflow; empty:
    where this processor is one."""
    bias_correction: bool = False
    """Shift biases so that each layer's mean output on the calibration images is that of the float model."""
    calibration: int = Field(default=512, ge=0)
    """Unlabelled training images that the ranges are estimated on; 0: none, batch norms tell the ranges."""
    rescue: tuple[RescueName, ...] | None = None
    """What is done to the float network beforehand, in this order; the library's default when empty."""
    input_range: tuple[float, float] | None = None
    """Smallest and largest value of prepared images, for ``calibration: 0``; -4 to 4 when empty."""
    at_most_lost: float | None = Field(default=None, ge=0)
    """Points of accuracy that may be lost: bits are raised, up to 8, where sensitivity says, until no more
    are, judged on ``judged`` labelled training images that did not calibrate."""
    judged: int = Field(default=1024, ge=1)
    """Training images held out of the calibration for ``at_most_lost``."""
    evaluations: int = Field(default=12, ge=3)
    """Most models that ``at_most_lost`` judges."""
    sensitivity: bool = False
    """Show in the report how far outputs move when each layer alone is quantized at 8 to 2 bits."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Estimate ranges and simulate the quantized model."""
        from dataclasses import replace

        from gracile import quantize

        from ..state import Outcome
        from .analysis import looked_at, told, within

        images = bench.calibration(self.calibration) if self.calibration else None
        scheme = self.scheme()
        bits, detail = f"W{self.weight_bits}A{self.activation_bits}", {}
        if self.at_most_lost is None or images is None:
            quantized = quantize.ptq(
                state.model,
                bench.inputs,
                images,
                scheme,
                progress=lambda done, total: bench.tick("blocks", done, total),
            )
        else:
            found = within(state, bench, images, scheme, drop=self.at_most_lost, judged=self.judged,
                           evaluations=self.evaluations)  # fmt: skip
            quantized, bits = found.model, told(found.trail, self.judged)
            detail["trail"] = to_plain(found.trail)
        plan = quantized.plan
        if images is not None:
            detail |= looked_at(quantized, state, bench, images, scheme, self.sensitivity)
        return Outcome(
            state=replace(state, quant=plan, quantized=quantized),
            summary=f"{len(plan.weights)} layers at {bits}{half(plan)}, {len(plan.skipped)} left in float",
            detail={
                "estimator": plan.estimator,
                "reduced": len(plan.reduced),
                "layers": len(plan.weights),
                "images": 0 if images is None else len(images),
                **detail,
            },
            skips=plan.skipped,
        )

    def check(self) -> None:
        """Refuse what the scheme refuses, and accuracy that nothing is there to judge by."""
        self.scheme()
        if self.at_most_lost is not None and not self.calibration:
            raise BadArgument(
                "at_most_lost", wanted="calibration images", found="calibration: 0",
                do="Give calibration images, or leave at_most_lost out.",
            )  # fmt: skip

    def scheme(self) -> Scheme:
        """The fields as the library's own configuration."""
        from gracile import quantize

        apart = {"step", "name", "calibration", "weight_granularity", "rounding", "ends", "layers"}
        apart |= {"at_most_lost", "judged", "evaluations", "sensitivity", "group_size", "iterations"}
        apart |= {"rescue", "input_range"}
        fields = self.model_dump(exclude=apart)
        granularities: dict[str, quantize.PerChannel | quantize.PerTensor | quantize.PerGroup] = {
            "per_channel": quantize.PerChannel(),
            "per_tensor": quantize.PerTensor(),
            "per_group": quantize.PerGroup(size=self.group_size),
        }
        return quantize.Scheme(
            weight_granularity=granularities[self.weight_granularity],
            rounding=self._rounding(),
            rescue=None if self.rescue is None else tuple(quantize.RESCUES[name] for name in self.rescue),
            data_free=quantize.DataFree(input_range=self.input_range),
            ends=quantize.Bits(**self.ends.model_dump()),
            layers={pattern: quantize.Bits(**bits.model_dump()) for pattern, bits in self.layers.items()},
            **fields,
        )

    def _rounding(self) -> Rounding | str | None:
        from gracile import quantize

        if self.iterations is None:
            return self.rounding
        if self.rounding == "adaround":
            return quantize.AdaRound(iterations=self.iterations)
        if self.rounding == "blocks":
            return quantize.Blocks(iterations=self.iterations)
        raise BadArgument(
            "iterations",
            wanted="adaround or blocks as the rounding",
            found=f"{self.iterations} with rounding {self.rounding}",
            do="Leave iterations out, or name the rounding.",
        )


def half(plan: QuantPlan) -> str:
    """For a summary: how many layers take half the range of 8 bits; empty where none does."""
    return f" ({len(plan.reduced)} in half the range of 8 bits)" if plan.reduced else ""
