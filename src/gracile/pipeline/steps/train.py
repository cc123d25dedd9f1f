"""Train the model that the rest of the recipe starts from."""

from __future__ import annotations

from typing import ClassVar, Literal

from .training import TrainingStep


class TrainStep(TrainingStep):
    """Train the original: what it leaves is what the compressed model is compared with."""

    makes_original: ClassVar[bool] = True

    step: Literal["train"] = "train"
