"""XNOR weights: signs, times the mean of the absolute values.

Source: Rastegari, Ordonez, Redmon and Farhadi, "XNOR-Net: ImageNet classification using binary convolutional
neural networks", ECCV 2016, arXiv 1603.05279, equation 6 (the mean is the factor of least squared error) and
section 3.1 (gradient). The paper keeps, of the mean's gradient, each weight's own share ``1/n``; here the
product rule is carried out in full. Signs with a gradient that ends at ``|w| = 1`` are those of Courbariaux
et al., "Binarized neural networks", 2016, arXiv 1602.02830, equation 4.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..straight import straight
from .base import WeightQuantizer, mean_size


class XNOR(WeightQuantizer):
    """``alpha sign(W)`` with ``alpha = mean|W|``; ``sign(0)`` is 1.

    The gradient of ``W_i`` is ``alpha g_i + sign(W_i) / n * sum_j g_j sign(W_j)``. As ``alpha`` is small, it
    is smaller than that of the straight-through estimator (``dorefa`` with 1 bit) by that factor.

    Args:
        bits: 1.
        axis: As in :class:`WeightQuantizer`.
        channels: As in :class:`WeightQuantizer`.
        bounded: The first term is zero where ``|W_i| > 1``.

    Example:
        >>> XNOR(1)(torch.tensor([0.1, -0.4, 1.0])).tolist()
        [0.5, -0.5, 0.5]
    """

    BITS: ClassVar[tuple[int, ...]] = (1,)

    def __init__(
        self, bits: int = 1, *, axis: int | None = None, channels: int | None = None, bounded: bool = False
    ) -> None:
        super().__init__(bits, axis=axis, channels=channels)
        self.bounded = bounded

    def _mean(self, weight: Tensor) -> Tensor:
        return self.per_scale(mean_size(self.rows(weight)))

    @torch.no_grad()
    def scale(self, weight: Tensor) -> Tensor:
        """``mean|W|``."""
        return self._mean(weight.float())

    def _codes(self, weight: Tensor) -> Tensor:
        return torch.where(weight >= 0, 1.0, -1.0)

    def _fake(self, weight: Tensor) -> Tensor:
        through = weight.clamp(-1, 1) if self.bounded else weight
        signs = straight(self._codes(weight.detach()), through)
        return signs * self.spread(self._mean(weight), weight)
