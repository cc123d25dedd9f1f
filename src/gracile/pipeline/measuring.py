"""Accuracy as a recipe asks for it, of a model or of a file in a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gracile import measure
from gracile.data import DataBundle
from gracile.records import Accuracy

from .recipe import MeasurePart

Tick = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Answers:
    """Predicted and true classes ``(n,)`` and what they amount to."""

    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def accuracy(self) -> Accuracy:
        """Share of right predictions."""
        return measure.accuracy(self.predicted, self.labels)


def answers(model: Any, bundle: DataBundle, part: MeasurePart, tick: Tick | None = None) -> Answers:
    """Run a module or a runner over the test images that the recipe names."""
    test = bundle.test
    if part.test_images is not None and part.test_images < len(test):
        test = test.subset(range(part.test_images))
    told = None if tick is None else lambda done, total: tick("accuracy", done, total)
    return Answers(*measure.predictions(model, test, part.batch_size, on_batch=told))
