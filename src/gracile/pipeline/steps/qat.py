"""Quantization-aware training of the model as the steps before left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from gracile.errors import BadArgument

from .quantize import half
from .training import facts, told
from .tune import TuneStep

if TYPE_CHECKING:
    from gracile.nn import QuantizedModel
    from gracile.quantize.qat import Plan, QatModel, QatScheme
    from gracile.tune import Hook

    from ..state import Bench, Outcome, State


class TrainedBits(BaseModel):
    """Bits of some layers; what is not given stays as it is elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    weights: int | None = Field(default=None, ge=1, le=8)
    activations: int | None = Field(default=None, ge=1, le=8)


class QatStep(TuneStep):
    """Train with quantized weights and activations, then make integers of them."""

    quantizes: ClassVar[bool] = True

    step: Literal["qat"] = "qat"  # type: ignore[assignment]
    weight_bits: int = Field(default=4, ge=1, le=8)
    """2 bits are ternary."""
    activation_bits: int = Field(default=8, ge=1, le=8)
    sum_bits: int = Field(default=8, ge=2, le=8)
    """Bits of activations that only sums, averages and outputs read."""
    ends: TrainedBits = TrainedBits(weights=8, activations=8)
    """Bits of the first and last layers; ``{}`` for no exception."""
    layers: dict[str, TrainedBits] = Field(default_factory=dict)
    """Bits by layer name or pattern; the last that fits counts."""
    weights: Literal["lsq", "minmax", "dorefa", "xnor", "twn", "ttq", "symmetric2"] = "lsq"
    """How weights are rounded while they train."""
    activations: Literal["lsq", "lsq_plus", "pact", "ema", "unit"] = "lsq"
    """How activations are rounded."""
    weight_granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    batch_norm: Literal[
        "plain", "fold_and_drop", "frozen", "two_convolutions", "krishnamoorthi", "one_convolution"
    ] = "plain"
    """Where batch norms stand while training."""
    reduce_range: bool | None = None
    """As in ``quantize``."""
    calibration: int = Field(default=512, ge=1)
    """Unlabelled training images on which first ranges are found."""
    activations_from: int = Field(default=1, ge=1)
    """First epoch that rounds activations."""
    freeze_norms: int = Field(default=0, ge=0)
    """Last epochs in which batch norms keep their statistics; the learning rate has to be small by then."""
    progressive: dict[int, int] = Field(default_factory=dict)
    """Weight bits from an epoch on, such as ``{1: 4, 3: 2}``; the last has to be ``weight_bits``."""

    def check(self) -> None:
        """Refuse what training, the scheme or the phases refuse."""
        super().check()
        for name in ("gradual", "less_is_more"):
            if getattr(self, name) is not None:
                raise BadArgument(
                    name, wanted="it in a `train` or `tune` step", found="it in `qat`",
                    do="Prune first; masks of `sparsify` hold while bits are trained.",
                )  # fmt: skip
        self.scheme()
        self.phases()

    def scheme(self) -> QatScheme:
        """The fields as the library's own configuration."""
        from gracile.quantize import Bits
        from gracile.quantize.qat import QatScheme

        return QatScheme(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            sum_bits=self.sum_bits,
            ends=Bits(**self.ends.model_dump()),
            layers={pattern: Bits(**bits.model_dump()) for pattern, bits in self.layers.items()},
            weights=self.weights,
            activations=self.activations,
            per_channel=self.weight_granularity == "per_channel",
            batch_norm=self.batch_norm,
            reduce_range=self.reduce_range,
        )

    def phases(self) -> Plan:
        """The moments of the training."""
        from gracile.quantize.qat import Plan

        last = self.progressive.get(max(self.progressive, default=0), self.weight_bits)
        if last != self.weight_bits:
            raise BadArgument(
                "progressive", wanted=f"weight_bits ({self.weight_bits}) in the end", found=f"{last}"
            )
        return Plan(
            epochs=self.epochs,
            activations_from=self.activations_from,
            freeze_norms=self.freeze_norms,
            weight_bits=self.progressive,
        )

    def run(self, state: State, bench: Bench) -> Outcome:
        """Train; the model becomes what was learned, its integers beside it."""
        from dataclasses import replace

        from gracile.quantize import qat

        from ..state import Outcome

        images = bench.calibration(self.calibration)
        model = qat.prepare(state.model, bench.inputs, images, self.scheme())
        hooks: list[Hook] = [qat.Phases(self.phases())]
        if state.masks is not None:
            from gracile import prune

            hooks.append(prune.Masks(model.named_as_here(state.masks)))
        history = self.fit(model, bench, hooks)
        quantized = model.convert()
        plan, bits = quantized.plan, f"W{self.weight_bits}A{self.activation_bits}"
        examples, _ = self.examples(bench)
        return Outcome(
            state=replace(state, model=model.write_back(state.model), quant=plan, quantized=quantized),
            summary=f"{len(plan.weights)} layers at {bits}{half(plan)}, {told(history)}",
            detail=facts(history, len(examples)) | self._detail(quantized, model, len(images)),
            skips=plan.skipped,
        )

    def _detail(self, quantized: QuantizedModel, model: QatModel, images: int) -> dict[str, Any]:
        from gracile.quantize import qat

        return {
            "estimator": quantized.plan.estimator,
            "reduced": len(quantized.plan.reduced),
            "layers": len(quantized.plan.weights),
            "images": images,
            "technique": {"weights": self.weights, "activations": self.activations, "norms": self.batch_norm},
            "zeros": qat.zeros(model),
        }
