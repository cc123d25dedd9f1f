"""Fine-tune the model as the steps before left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .training import TrainingStep

if TYPE_CHECKING:
    from gracile.tune import Loss

    from ..state import Bench


class TuneStep(TrainingStep):
    """Fine-tune the compressed model."""

    step: Literal["tune"] = "tune"
    distill: float = Field(default=0.0, ge=0, le=1)
    """Weight of the original model's opinion beside the labels (knowledge distillation); 0 for none."""
    temperature: float = Field(default=4.0, gt=0)
    """Of the distillation: how far the original's probabilities are softened."""

    def loss(self, bench: Bench) -> Loss | None:
        """Distillation from the original, where it is asked for."""
        if not self.distill:
            return None
        from gracile import tune

        return tune.Distillation(
            bench.restored("original").model,
            temperature=self.temperature,
            weight=self.distill,
            label_smoothing=self.label_smoothing,
            bf16=self.bf16,
        )
