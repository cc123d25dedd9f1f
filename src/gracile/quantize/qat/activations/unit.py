"""Activations in 0..1: clipped there and rounded, down to a single bit.

Source: Zhou et al., "DoReFa-Net", 2016, arXiv 1606.06160, equations 5 and 11 and section 2.4: activations are
clipped to [0, 1] and rounded to ``2^b - 1`` steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import TrainableActivation, check_range
from .rounding import round_to_grid


class UnitRange(TrainableActivation):
    """``round(clip(x, 0, 1) qmax) / qmax``; the gradient passes inside. There is nothing to learn.

    Example:
        >>> UnitRange(1)(torch.tensor([-3.0, 0.4, 0.6, 3.0])).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """

    step: Tensor
    zero_point: Tensor

    def __init__(self, bits: int = 1) -> None:
        super().__init__(bits)
        self.register_buffer("step", torch.tensor(1 / self.qmax), persistent=False)
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32), persistent=False)

    def start_(self, low: float, high: float) -> None:
        """Nothing: the range is 0..1 whatever the values were."""
        check_range(low, high)

    def steps(self) -> tuple[Tensor, Tensor]:
        """``1 / qmax`` and 0."""
        return self.step.float(), self.zero_point

    def _fake(self, x: Tensor) -> Tensor:
        return round_to_grid(x, *self.steps(), self.qmax)
