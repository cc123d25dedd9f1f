"""Ternary weight networks: a threshold from the mean, one value for what lies beyond it.

Source: Li, Wang, Liu, Zhang, Yan and Liu, "Ternary weight networks", 2016, arXiv 1605.04711, equations 3, 5
and 6: the threshold 0.7 mean|W| nearly minimizes the squared error for weights that are spread as a Gaussian
or evenly; for a given threshold the mean of what lies beyond it does so exactly.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..straight import straight
from .base import WeightQuantizer, positive

_SHARE = 0.7  # of the mean, equation 6


class TWN(WeightQuantizer):
    """``alpha sign(W)`` where ``|W| > 0.7 mean|W|``, else 0; ``alpha`` is the mean of ``|W|`` there.

    The gradient passes straight.

    Example:
        >>> TWN(2)(torch.tensor([0.1, -0.5, 0.75])).tolist()
        [0.0, -0.625, 0.625]
    """

    BITS: ClassVar[tuple[int, ...]] = (2,)

    @torch.no_grad()
    def scale(self, weight: Tensor) -> Tensor:
        """``alpha``."""
        rows = self.rows(weight.float()).abs()
        beyond = rows > _SHARE * rows.mean(1, keepdim=True)
        mean = (rows * beyond).sum(1) / beyond.sum(1).clamp(min=1)
        return self.per_scale(positive(mean))

    def _codes(self, weight: Tensor) -> Tensor:
        threshold = _SHARE * self.per_scale(self.rows(weight).abs().mean(1))
        return torch.sign(weight).where(weight.abs() > self.spread(threshold, weight), 0.0)

    def _fake(self, weight: Tensor) -> Tensor:
        fixed = weight.detach()
        return straight(self._codes(fixed) * self.spread(self.scale(fixed), fixed), weight)
