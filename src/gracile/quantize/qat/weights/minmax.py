"""Min-max weights: the largest weight of each pass sets the step.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018, arXiv 1712.05877, section 3.1 (ranges of weights are their extremes); the symmetric
form ``round(W (2^(b-1) - 1) / max|W|)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..straight import straight
from .base import WeightQuantizer, positive


class MinMaxWeights(WeightQuantizer):
    """``round(W / s) * s`` with ``s = max|W| / qmax``, found anew in each pass; the gradient passes straight.

    Example:
        >>> MinMaxWeights(3)(torch.tensor([0.1, -0.5, 0.75])).tolist()
        [0.0, -0.5, 0.75]
    """

    @torch.no_grad()
    def scale(self, weight: Tensor) -> Tensor:
        """``max|W| / qmax``."""
        return self.per_scale(positive(self.rows(weight.float()).abs().amax(1) / self.qmax))

    def _codes(self, weight: Tensor) -> Tensor:
        steps = weight / self.spread(self.scale(weight), weight)
        return torch.round(steps).clamp(-self.qmax, self.qmax)

    def _fake(self, weight: Tensor) -> Tensor:
        fixed = weight.detach()
        return straight(self._codes(fixed) * self.spread(self.scale(fixed), fixed), weight)
