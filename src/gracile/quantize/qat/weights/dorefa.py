"""DoReFa weights: squashed by tanh, scaled to -1..1, rounded.

Source: Zhou, Wu, Ni, Zhou, Wen and Zou, "DoReFa-Net: training low bitwidth convolutional neural networks with
low bitwidth gradients", 2016, arXiv 1606.06160, equations 7 to 10. We differ in two things. The grid mirrors
and holds zero, as all our grids of weights (the paper has ``2^b`` values and no zero). Rounded weights are
multiplied by a constant, 1 unless ``start_`` saw a weight: then the one that brings them nearest to it, so
that a trained network keeps its scale where no batch norm follows.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..straight import round_straight, straight
from .base import WeightQuantizer, mean_size, positive


class DoReFaWeights(WeightQuantizer):
    """``gain / qmax * round(qmax tanh(W) / max|tanh(W)|)``; with 1 bit ``sign(W) mean|W|``.

    Gradients follow the chain rule with a straight-through ``round``; with 1 bit they pass straight to ``W``.

    Example:
        >>> DoReFaWeights(1)(torch.tensor([0.1, -0.4, 1.0])).tolist()
        [0.5, -0.5, 0.5]
    """

    BITS: ClassVar[tuple[int, ...]] = tuple(range(1, 9))
    gain: Tensor

    def __init__(self, bits: int, *, axis: int | None = None, channels: int | None = None) -> None:
        super().__init__(bits, axis=axis, channels=channels)
        self.register_buffer("gain", torch.ones(() if channels is None else (channels,)))

    @torch.no_grad()
    def start_(self, weight: Tensor) -> None:
        """The gain of least squared error."""
        if self.bits == 1:
            return
        codes, rows = self.rows(self._codes(weight.float())), self.rows(weight.float())
        best = (codes * rows).sum(1) / codes.square().sum(1) * self.qmax
        self.gain.copy_(self.per_scale(positive(best)))

    @torch.no_grad()
    def scale(self, weight: Tensor) -> Tensor:
        """``gain / qmax``, or ``mean|W|`` with 1 bit."""
        if self.bits > 1:
            return self.gain.float() / self.qmax
        return self.per_scale(mean_size(self.rows(weight.float())))

    def _squashed(self, weight: Tensor) -> Tensor:
        """``qmax tanh(W) / max|tanh(W)|``."""
        squashed = torch.tanh(weight)
        largest = self.per_scale(positive(self.rows(squashed).abs().amax(1)))
        return squashed / self.spread(largest, weight) * self.qmax

    def _codes(self, weight: Tensor) -> Tensor:
        if self.bits == 1:
            return torch.where(weight >= 0, 1.0, -1.0)
        return torch.round(self._squashed(weight))

    def _fake(self, weight: Tensor) -> Tensor:
        scale = self.spread(self.scale(weight), weight)
        if self.bits == 1:
            return straight(self._codes(weight.detach()) * scale, weight)
        return round_straight(self._squashed(weight)) * scale
