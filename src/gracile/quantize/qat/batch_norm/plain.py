"""The weight is rounded as it is, and an ordinary batch norm follows: for scales per channel.

Source: Nagel, Fournarakis, Amjad, Bondarenko, van Baalen and Blankevoort, "A white paper on neural network
quantization", 2021, arXiv 2106.08295, section 5.2 (scales per channel absorb the norm's).
"""

from __future__ import annotations

from torch import Tensor

from .base import QatLayer, full
from .batch_statistics import normalised_


class Plain(QatLayer):
    """``batch_norm(operation(x, Q(W), bias))`` while training.

    Deployed, the norm's slope goes into the scales, ``slope Q(W) = integers (scale |slope|)`` with the
    slope's sign in the integers, so scales are one a channel even where the quantizer has one. With rounding
    off it is batch norm exactly; the batch's statistics are those of the rounded weight.
    """

    slope_goes = "outside"

    def normalised(self, x: Tensor) -> Tensor:
        """Round, run, normalise."""
        assert self.norm is not None
        y = self.run(x, self.quantizer(full(self.weight)), self.bias)
        return normalised_(self.norm, y).to(y.dtype)
