"""Learned step size for weights: the step is a parameter of the network, trained with its weights.

Source: Esser, McKinstry, Bablani, Appuswamy and Modha, "Learned step size quantization", ICLR 2020, arXiv
1902.08153, equations 1 to 3 and 5 and section 2.2. We differ in two things. The grid leaves its lowest
integer out, so that it mirrors and 2 bits are ternary. The step starts where the squared error of the weights
is least (as in LSQ+, Bhalgat et al., arXiv 2004.09576, whose quantizer of weights is this one but for its
start): on ResNet-20 for CIFAR-10 both papers' own starts leave a larger error at every width, see the page of
this technique.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...ranges import MSE
from ..straight import round_straight, scale_gradient
from .base import WeightQuantizer, positive


class LSQ(WeightQuantizer):
    """``round(clip(W / s, -qmax, qmax)) * s`` with a learned ``s``.

    The gradient of ``s`` is that of a straight-through ``round``: ``round(W/s) - W/s`` inside the range,
    ``qmax`` or ``-qmax`` outside, times ``1 / sqrt(N qmax)``, where ``N`` weights share the step. Weights
    outside the range get no gradient.

    Example:
        >>> quantizer = LSQ.of(torch.tensor([[0.1, -0.4, 0.9]]), bits=2)
        >>> quantizer.integers(torch.tensor([[0.1, -0.4, 0.9]])).tolist()
        [[0, -1, 1]]
    """

    def __init__(self, bits: int, *, axis: int | None = None, channels: int | None = None) -> None:
        super().__init__(bits, axis=axis, channels=channels)
        self.learned_scale = nn.Parameter(torch.ones(() if channels is None else (channels,)))

    @torch.no_grad()
    def start_(self, weight: Tensor) -> None:
        """The step of least squared error."""
        found = MSE()(weight.float(), bits=self.grid_bits, signed=True, symmetric=True, axis=self.axis).scale
        reach = self.per_scale(self.rows(weight.float()).abs().amax(1))
        self.learned_scale.copy_(torch.where(reach > 0, positive(found), 1.0))

    def scale(self, weight: Tensor) -> Tensor:
        """The learned step."""
        return positive(self.learned_scale.detach().float().abs())

    def _codes(self, weight: Tensor) -> Tensor:
        return torch.round((weight / self.spread(self.scale(weight), weight)).clamp(-self.qmax, self.qmax))

    def _fake(self, weight: Tensor) -> Tensor:
        sharing = weight.numel() / self.learned_scale.numel()
        learned = scale_gradient(self.learned_scale.float(), (sharing * self.qmax) ** -0.5)
        s = self.spread(positive(learned.abs()), weight)
        return round_straight((weight / s).clamp(-self.qmax, self.qmax)) * s
