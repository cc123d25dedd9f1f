"""PACT: the end of the range of activations is learned.

Source: Choi, Wang, Venkataramani, Chuang, Srinivasan and Gopalakrishnan, "PACT: parameterized clipping
activation for quantized neural networks", 2018, arXiv 1805.06085, equations 1 to 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument

from ..weights.base import positive
from .base import TrainableActivation, check_range
from .rounding import round_to_grid


class PACT(TrainableActivation):
    """``round(clip(x, 0, a) qmax / a) a / qmax`` with a learned ``a``.

    The gradient of ``a`` is 1 for values above it. The paper draws ``a`` towards zero with weight decay: give
    ``clip`` the weight decay that you want in the optimizer.

    Example:
        >>> quantizer = PACT(2)
        >>> quantizer.start_(0.0, 3.0)
        >>> quantizer(torch.tensor([-1.0, 0.6, 9.0])).tolist()
        [0.0, 1.0, 3.0]
    """

    zero_point: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.clip = nn.Parameter(torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32), persistent=False)

    @torch.no_grad()
    def start_(self, low: float, high: float) -> None:
        """The upper end of the range.

        Raises:
            BadArgument: The range holds negative values, which this technique has no integers for.
        """
        low, high = check_range(low, high)
        if low < 0:
            raise BadArgument(
                "low",
                wanted="values from 0 for PACT, as behind a ReLU",
                found=f"{low=}",
                do="Use lsq or lsq_plus here.",
            )
        self.clip.copy_(positive(torch.as_tensor(high, dtype=torch.float32)))

    def steps(self) -> tuple[Tensor, Tensor]:
        """``a / qmax`` and 0."""
        return positive(self.clip.detach().float().abs() / self.qmax), self.zero_point

    def _fake(self, x: Tensor) -> Tensor:
        scale, zero_point = self.steps()
        return round_to_grid(x, scale, zero_point, self.qmax, clip=self.clip.float().abs())
