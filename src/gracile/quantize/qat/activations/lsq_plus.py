"""LSQ+: step and offset of activations are learned, for those that are negative too.

Source: Bhalgat, Lee, Nagel, Blankevoort and Kwak, "LSQ+: improving low-bit quantization through learnable
offsets and better initialization", CVPR Workshops 2020, arXiv 2004.09576, equations 3 to 6. The offset that
is used is the learned one rounded to a multiple of the step (a zero point), so that zero is on the grid and
the network runs on integers. Both start from the calibrated range, rather than from one batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..straight import scale_gradient
from ..weights.base import positive
from .base import TrainableActivation, check_range
from .rounding import round_to_grid


class LSQPlus(TrainableActivation):
    """``round(clip((x - o) / s, 0, qmax)) * s + o`` with learned ``s`` and ``o``, ``o`` rounded to steps.

    The gradient of ``s`` is ``round(x/s) - x/s`` inside the range, 0 below and ``qmax`` above; that of ``o``
    is 1 outside; both are multiplied by ``1 / sqrt(N qmax)`` with ``N`` values for each example of the batch.

    Example:
        >>> quantizer = LSQPlus(2)
        >>> quantizer.start_(-1.0, 2.0)
        >>> quantizer(torch.tensor([-9.0, 0.6, 9.0])).tolist()
        [-1.0, 1.0, 2.0]
    """

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.learned_scale = nn.Parameter(torch.ones(()))
        self.low_clip = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def start_(self, low: float, high: float) -> None:
        """The range, widened to hold zero."""
        low, high = check_range(low, high)
        self.low_clip.fill_(low)
        step = torch.as_tensor((high - low) / self.qmax, dtype=torch.float32)
        self.learned_scale.copy_(positive(step))

    def steps(self) -> tuple[Tensor, Tensor]:
        """The learned step, and the offset in steps."""
        scale = positive(self.learned_scale.detach().float().abs())
        zero_point = torch.round(-self.low_clip.detach().float() / scale).clamp(0, self.qmax)
        return scale, zero_point.to(torch.int32)

    def _fake(self, x: Tensor) -> Tensor:
        factor = (math.prod(x.shape[1:]) * self.qmax) ** -0.5
        learned, offset = (scale_gradient(p.float(), factor) for p in (self.learned_scale, self.low_clip))
        return round_to_grid(x, positive(learned.abs()), self.steps()[1], self.qmax, offset=offset)
