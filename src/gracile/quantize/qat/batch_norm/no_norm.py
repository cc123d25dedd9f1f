"""A layer without batch norm: its weight is rounded, and that is all."""

from __future__ import annotations

from torch import Tensor

from .base import QatLayer


class NoNorm(QatLayer):
    """``operation(x, Q(W), bias)``, while training too."""

    slope_goes = "nowhere"

    def normalised(self, x: Tensor) -> Tensor:
        """The same as in evaluation: there is nothing to normalise."""
        return self.run(x, *self.effective())
