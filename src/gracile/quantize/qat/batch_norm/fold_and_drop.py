"""Batch norm is folded into the weights before training, and is gone.

Source: Nagel, Fournarakis, Amjad, Bondarenko, van Baalen and Blankevoort, "A white paper on neural network
quantization", 2021, arXiv 2106.08295, section 5.2 (static folding); the fold itself is equation 14 of Jacob
et al., arXiv 1712.05877.
"""

from __future__ import annotations

from torch import Tensor

from gracile.errors import BadArgument
from gracile.surgery import NormNumbers, fold_norm

from ..operation import Operation
from ..weights.base import WeightQuantizer
from .base import BatchNorm, QatLayer, check_norm


class FoldAndDrop(QatLayer):
    """``operation(x, Q(W'), b')``, where the folded weight and bias are what trains.

    With ``slope = gamma / sqrt(running_var + eps)``, ``W' = slope W`` and ``b' = beta + (bias - running_mean)
    slope``, once. With rounding off it is the float layer and norm in evaluation mode, while training too;
    statistics of batches no longer matter, and a unit step along ``W'`` is not one along ``W``.
    """

    slope_goes = "nowhere"

    def __init__(
        self,
        operation: Operation,
        weight: Tensor,
        bias: Tensor | None,
        norm: BatchNorm | None,
        quantizer: WeightQuantizer,
    ) -> None:
        if norm is None:
            raise BadArgument("FoldAndDrop", wanted="a batch norm", found="none", do="Take NoNorm.")
        check_norm("FoldAndDrop", norm, operation.outputs(weight))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        numbers = NormNumbers(
            mean=norm.running_mean, var=norm.running_var, eps=norm.eps, gamma=norm.weight, beta=norm.bias
        )
        folded, shift = fold_norm(
            weight, bias, numbers, groups=operation.groups, transposed=operation.transposed
        )
        super().__init__(operation, folded.to(weight.dtype), shift.to(weight.dtype), None, quantizer)

    def normalised(self, x: Tensor) -> Tensor:
        """The same as in evaluation: no norm is left."""
        return self.run(x, *self.effective())
