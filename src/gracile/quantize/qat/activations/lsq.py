"""Learned step size for activations: the step is a parameter of the network, trained with its weights.

Source: Esser, McKinstry, Bablani, Appuswamy and Modha, "Learned step size quantization", ICLR 2020, arXiv
1902.08153, equations 1 to 3 and section 2.2. The step starts from the calibrated range. Where that holds
negative values the integers are signed, as in the paper for weights, and stand in the unsigned container of
runtimes around a zero point in its middle. One bit, which the paper does without, has 0 and one value more: a
positive one, unless the range reaches more than twice as far below zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..straight import scale_gradient
from ..weights.base import positive
from .base import TrainableActivation, check_range
from .rounding import round_to_grid


class LSQActivation(TrainableActivation):
    """``round(clip(x / s, 0, qmax)) * s`` with a learned ``s``; integers are signed for signed values.

    The gradient of ``s`` is ``round(x/s) - x/s`` inside the range and the outermost integer outside, times
    ``1 / sqrt(N qmax)`` with ``N`` values for each example of the batch.

    Example:
        >>> quantizer = LSQActivation(2)
        >>> quantizer.start_(0.0, 3.0)
        >>> quantizer(torch.tensor([-1.0, 0.6, 9.0])).tolist()
        [0.0, 1.0, 3.0]
    """

    zero_point: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.learned_scale = nn.Parameter(torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32))

    @torch.no_grad()
    def start_(self, low: float, high: float) -> None:
        """The step that spans the range."""
        low, high = check_range(low, high)
        signed = low < 0 and (self.bits > 1 or -low > 2 * high)  # 2 bits' own range is -2 to 1 steps
        middle = 2 ** (self.bits - 1) if signed else 0
        self.zero_point.fill_(middle)
        step = max(-low / middle if signed else 0.0, high / max(self.qmax - middle, 1))
        self.learned_scale.copy_(positive(torch.as_tensor(step, dtype=torch.float32)))

    def steps(self) -> tuple[Tensor, Tensor]:
        """The learned step, and the zero point that the first range asked for."""
        return positive(self.learned_scale.detach().float().abs()), self.zero_point

    def _fake(self, x: Tensor) -> Tensor:
        largest = (self.qmax - self.zero_point).clamp(min=1)
        learned = scale_gradient(self.learned_scale.float(), (math.prod(x.shape[1:]) * largest) ** -0.5)
        return round_to_grid(x, positive(learned.abs()), self.zero_point, self.qmax)
