"""Trained ternary quantization: one learned value for positive weights, another for negative ones.

Source: Zhu, Han, Mao and Dally, "Trained ternary quantization", ICLR 2017, arXiv 1612.01064, equations 6 to
9. The paper gives the negative value's gradient without its sign; here it is the derivative. Weights are not
scaled to -1..1 beforehand, which the threshold, relative to the largest, does not see. Both values start as
the means of the weights that they stand for, or of those of the other sign where there are none.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation

from .base import WeightQuantizer, positive


class TTQ(WeightQuantizer):
    """``p`` where ``W > t max|W|``, ``-n`` where ``W < -t max|W|``, else 0, with learned ``p`` and ``n``.

    The gradient of ``p`` is the sum of those of the weights that are ``p``, that of ``n`` minus the sum of
    those that are ``-n``; a weight's own is multiplied by ``p``, 1 or ``n``. Two different steps fit no grid,
    so :meth:`scale` raises; :meth:`levels` is the codebook that :meth:`integers` point into.

    Args:
        bits: 2.
        axis: As in :class:`WeightQuantizer`.
        channels: As in :class:`WeightQuantizer`.
        threshold: ``t``, from 0 to below 1.

    Raises:
        BadArgument: ``threshold`` lies outside its range.

    Example:
        >>> weight = torch.tensor([0.5, -0.25, 1.0, 0.01])
        >>> TTQ.of(weight, bits=2)(weight).tolist()
        [0.75, -0.25, 0.75, 0.0]
    """

    BITS: ClassVar[tuple[int, ...]] = (2,)
    ONE_SCALE: ClassVar[bool] = False

    def __init__(
        self,
        bits: int = 2,
        *,
        axis: int | None = None,
        channels: int | None = None,
        threshold: float = 0.05,
    ) -> None:
        super().__init__(bits, axis=axis, channels=channels)
        if not 0 <= threshold < 1:
            raise BadArgument("threshold", wanted="from 0 to below 1", found=f"{threshold=}")
        self.threshold = threshold
        shape = () if channels is None else (channels,)
        self.positive_scale = nn.Parameter(torch.ones(shape))
        self.negative_scale = nn.Parameter(torch.ones(shape))

    @torch.no_grad()
    def start_(self, weight: Tensor) -> None:
        """The means of the weights that each value stands for; of all that are not zero where it has none."""
        rows, codes = self.rows(weight.float()), self.rows(self._codes(weight.float()))
        for learned, sign in ((self.positive_scale, 1), (self.negative_scale, -1)):
            own = codes == sign
            own = torch.where(own.any(1, keepdim=True), own, codes != 0)
            mean = (rows.abs() * own).sum(1) / own.sum(1).clamp(min=1)
            learned.copy_(self.per_scale(positive(mean)))

    def levels(self) -> Tensor:
        """The values of the integers -1, 0 and 1: ``(3,)``, or ``(channels, 3)``."""
        p, n = (positive(v.detach().float().abs()) for v in (self.positive_scale, self.negative_scale))
        return torch.stack([-n, torch.zeros_like(p), p], -1)

    def scale(self, weight: Tensor) -> Tensor:
        """There is no single step.

        Raises:
            UnsupportedOperation: Always.
        """
        raise UnsupportedOperation(
            type(self).__name__,
            wanted="one step for all integers",
            found="a learned value for each sign",
            do="Keep the weight by its codebook (`levels`), or train with `lsq` or `twn`.",
        )

    def _codes(self, weight: Tensor) -> Tensor:
        largest = self.per_scale(self.rows(weight).abs().amax(1))
        return torch.sign(weight).where(weight.abs() > self.spread(self.threshold * largest, weight), 0.0)

    def _fake(self, weight: Tensor) -> Tensor:
        codes = self._codes(weight.detach())
        p = self.spread(positive(self.positive_scale.float().abs()), weight)
        n = self.spread(positive(self.negative_scale.float().abs()), weight)
        value = torch.where(codes > 0, p, torch.where(codes < 0, -n, 0.0))
        factor = torch.where(codes == 0, 1.0, value.detach().abs())
        return value + factor * (weight - weight.detach())  # the second term is zero, and carries equation 8
