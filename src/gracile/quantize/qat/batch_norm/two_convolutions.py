"""Batch norm is folded in each pass by the statistics of the batch: two convolutions, exact.

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam and Kalenichenko, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR 2018, arXiv 1712.05877, section 3.2 (a first
convolution with the float weight finds the statistics, the folded weight is rounded). Scaling by the batch's
own variance is how Krishnamoorthi, arXiv 1806.08342, and Li et al. ("MQBench", NeurIPS 2021 Datasets and
Benchmarks, arXiv 2111.03759, folding strategy 2) read it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import QatLayer, full, gamma_of, shift_of
from .batch_statistics import batch_statistics_


class TwoConvolutions(QatLayer):
    """``operation(x, Q(W gamma / sigma_B)) + beta + (bias - mu_B) gamma / sigma_B`` while training.

    ``mu_B`` and ``sigma_B = sqrt(var_B + eps)`` are those of ``operation(x, W) + bias`` on the batch, and
    gradients go through them. With rounding off it is batch norm exactly. The rounded weight moves with each
    batch, and evaluation rounds another one, scaled by the running variance. Frozen, it is :class:`Frozen`.
    """

    slope_goes = "inside"

    def normalised(self, x: Tensor) -> Tensor:
        """Normalise by the batch, with a weight that is scaled by the batch."""
        assert self.norm is not None
        mean, var = batch_statistics_(self.norm, self.run(x, self.weight, self.bias))
        slope = gamma_of(self.norm) * torch.rsqrt(var + self.norm.eps)
        weight = self.quantizer(self.operation.scaled(full(self.weight), slope))
        return self.run(x, weight, shift_of(self.norm, self.bias, mean, slope))
