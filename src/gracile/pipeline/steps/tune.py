"""Fine-tune the model as the steps before left it."""

from __future__ import annotations

from typing import Literal

from .training import TrainingStep


class TuneStep(TrainingStep):
    """Fine-tune the compressed model."""

    step: Literal["tune"] = "tune"
