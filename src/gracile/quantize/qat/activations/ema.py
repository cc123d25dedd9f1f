"""Moving range: the extremes of each batch, followed slowly while the network trains.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018, arXiv 1712.05877, section 3.1 and equations 11 to 13.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gracile.errors import BadArgument

from ..weights.base import positive
from .base import TrainableActivation, check_range
from .rounding import round_to_grid


class EMARange(TrainableActivation):
    """Round to the grid that spans ``a <- momentum * a + (1 - momentum) * extreme of the batch``.

    Extremes are read in training while ``observing``, also while ``enabled`` is false. The average starts at
    :meth:`start_`, or at the first batch. The range always holds zero, exactly on the grid.

    Args:
        bits: 1 to 8.
        momentum: Share of the old average that stays, from 0 to below 1.

    Raises:
        BadArgument: ``momentum`` or ``bits`` lies outside its range.

    Example:
        >>> quantizer = EMARange(2)
        >>> quantizer(torch.tensor([0.0, 0.6, 3.0])).tolist()
        [0.0, 1.0, 3.0]
    """

    low: Tensor
    high: Tensor
    started: Tensor

    def __init__(self, bits: int, *, momentum: float = 0.99) -> None:
        super().__init__(bits)
        if not 0 <= momentum < 1:
            raise BadArgument("momentum", wanted="from 0 to below 1", found=f"{momentum=}")
        self.momentum = momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def start_(self, low: float, high: float) -> None:
        """The first average."""
        low, high = check_range(low, high)
        self.low.fill_(low)
        self.high.fill_(high)
        self.started.fill_(True)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take a step towards the extremes of ``x``."""
        for average, new in zip((self.low, self.high), torch.aminmax(x), strict=True):
            moved = self.momentum * average + (1 - self.momentum) * new
            average.copy_(torch.where(self.started, moved, new))
        self.started.fill_(True)

    @torch.no_grad()
    def steps(self) -> tuple[Tensor, Tensor]:
        """The grid of the average range, widened to hold zero."""
        low, high = self.low.float().clamp(max=0), self.high.float().clamp(min=0)
        scale = positive((high - low) / self.qmax)
        return scale, torch.round(-low / scale).clamp(0, self.qmax).to(torch.int32)

    def _fake(self, x: Tensor) -> Tensor:
        return round_to_grid(x, *self.steps(), self.qmax)
