"""Weights are scaled by running statistics, outputs scaled back, and an ordinary batch norm follows.

Source: PyTorch, ``torch.ao.nn.intrinsic.qat.ConvBn2d`` (``_forward_approximate``), described by Li et al.,
"MQBench: towards reproducible and deployable model quantization benchmark", NeurIPS 2021 Datasets and
Benchmarks, arXiv 2111.03759, folding strategy 4. Where we differ: a scale ``gamma`` of the norm that is zero
or next to it is replaced by a small one before it is divided by, so outputs stay finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import QatLayer, full, gamma_of, running
from .batch_statistics import normalised_

_SMALLEST = 1e-6  # of gamma: outputs divided by it, and their squares in a variance, fit float32


class OneConvolution(QatLayer):
    """``batch_norm(operation(x, Q(slope W)) / slope + bias)`` while training.

    ``slope = gamma / sqrt(running_var + eps)``, before this batch. The weight is rounded as it will be
    deployed, at the cost of one convolution; the batch's statistics are those of the rounded weight. With
    rounding off it is batch norm exactly.
    """

    slope_goes = "inside"

    def normalised(self, x: Tensor) -> Tensor:
        """Scale, round, run, scale back, normalise."""
        assert self.norm is not None
        gamma = gamma_of(self.norm)
        gamma = torch.copysign(gamma.abs().clamp_min(_SMALLEST), gamma)
        slope = gamma * torch.rsqrt(full(running(self.norm)[1]) + self.norm.eps)
        y = self.operation(x, self.quantizer(self.operation.scaled(full(self.weight), slope)))
        back = full(y) / self.over_outputs(slope, y)
        if self.bias is not None:
            back = back + self.over_outputs(full(self.bias), y)
        return normalised_(self.norm, back).to(y.dtype)
