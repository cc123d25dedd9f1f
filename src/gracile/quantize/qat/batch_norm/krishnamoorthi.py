"""Weights are scaled by running statistics and outputs corrected to those of the batch; later all is frozen.

Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: a whitepaper", 2018,
arXiv 1806.08342, section on batch normalization in quantization-aware training (the correction factor
``c = sigma_B / sigma``, undone behind the convolution until the norm is frozen).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import QatLayer, full, gamma_of, running, shift_of
from .batch_statistics import batch_statistics_


class Krishnamoorthi(QatLayer):
    """``operation(x, Q(W gamma / sigma)) / c + beta + (bias - mu_B) gamma / sigma_B`` while training.

    ``mu_B`` and ``sigma_B`` are the statistics of ``operation(x, W) + bias`` on the batch, ``sigma`` the
    running one (this batch included) and ``c = sigma_B / sigma``. The rounded weight is the one that
    evaluation rounds and moves slowly, outputs are normalised by the batch; with rounding off it is batch
    norm exactly. Frozen, no batch counts any more and ``c`` is gone: ``operation(x, Q(W gamma / sigma)) +
    beta + (bias - mu) gamma / sigma``.
    """

    slope_goes = "inside"

    def normalised(self, x: Tensor) -> Tensor:
        """Normalise by the batch, with a weight that is scaled by running statistics."""
        assert self.norm is not None
        mean, var = batch_statistics_(self.norm, self.run(x, self.weight, self.bias))
        of_batch = torch.rsqrt(var + self.norm.eps)  # 1 / sigma_B
        of_running = torch.rsqrt(full(running(self.norm)[1]) + self.norm.eps)  # 1 / sigma
        gamma = gamma_of(self.norm)
        weight = self.quantizer(self.operation.scaled(full(self.weight), gamma * of_running))
        y = self.operation(x, weight)
        back = self.over_outputs(of_batch / of_running, y)  # 1 / c
        shift = self.over_outputs(shift_of(self.norm, self.bias, mean, gamma * of_batch), y)
        return (full(y) * back + shift).to(y.dtype)
