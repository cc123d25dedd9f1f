"""Batch norm is folded in each pass by statistics that stand still; its scale and shift train.

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam and Kalenichenko, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR 2018, arXiv 1712.05877, equation 14; as a
scheme of training, Li et al., "MQBench: towards reproducible and deployable model quantization benchmark",
NeurIPS 2021 Datasets and Benchmarks, arXiv 2111.03759, folding strategy 1.
"""

from __future__ import annotations

from torch import Tensor

from .base import QatLayer


class Frozen(QatLayer):
    """``operation(x, Q(slope W), beta + (bias - running_mean) slope)``, while training too.

    ``slope = gamma / sqrt(running_var + eps)``; ``W``, ``bias``, ``gamma`` and ``beta`` train, statistics
    stay as they came. With rounding off, outputs and gradients are those of the float layer whose norm is in
    evaluation mode.
    """

    slope_goes = "inside"

    def normalised(self, x: Tensor) -> Tensor:
        """The same as in evaluation: statistics stand still."""
        return self.run(x, *self.effective())
