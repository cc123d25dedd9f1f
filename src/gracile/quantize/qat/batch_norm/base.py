"""A layer with the batch norm behind it, trained with a quantized weight; what all schemes share.

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam and Kalenichenko, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR 2018, arXiv 1712.05877, section 3.2: a layer
runs as one operation with the norm multiplied into it, so training must round what will be rounded then.
Schemes differ in which weight is rounded, and by which statistics outputs are normalised while training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation

from ...weights import MOST_BIAS
from ..activations.base import TrainableActivation
from ..operation import Operation
from ..straight import round_straight
from ..weights.base import NEXT_TO_NOTHING, WeightQuantizer

BatchNorm = nn.modules.batchnorm._BatchNorm
_LEAST = torch.finfo(torch.float32).tiny  # of a scale
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Deployed:
    """A layer as it will run: ``operation(x, integers * scale, bias)``, with the norm inside.

    Args:
        integers: int8, shape of the weight.
        scale: Positive, ``(out,)`` or ``()``.
        bias: ``(out,)``.
    """

    integers: Tensor
    scale: Tensor
    bias: Tensor


class QatLayer(nn.Module, ABC):
    """A layer and the batch norm behind it, as one module.

    Outside training, and once frozen, it is one operation with long-term statistics (:meth:`effective`).
    While training and not frozen it computes :meth:`normalised`, which is what schemes differ in. With
    ``slope = gamma / sqrt(running_var + eps)``, the deployed weight is ``Q(slope W)`` where the slope goes
    inside the rounding and ``slope Q(W)`` where it goes outside; the bias is
    ``beta + (bias - running_mean) slope``.

    Args:
        operation: What it does with the weight.
        weight: Float weight; copied.
        bias: ``(out,)`` or ``None``; copied.
        norm: The batch norm behind it, or ``None``; taken over as a child, with its statistics.
        quantizer: Of the weight; its first values are found here.

    Attributes:
        reads: What rounds its input, where something does; then the bias of :meth:`effective` is rounded too.
        slope_goes: Where a scheme multiplies the norm into the weight: ``"inside"`` the rounding,
            ``"outside"`` it, or ``"nowhere"`` for layers without a norm.

    Raises:
        BadArgument: The norm or the scales of the quantizer do not fit the weight, or the scheme wants a norm
            and there is none (or the other way round).
        UnsupportedOperation: The norm keeps no statistics, or is a class of its own.
    """

    slope_goes: ClassVar[Literal["inside", "outside", "nowhere"]]

    def __init__(
        self,
        operation: Operation,
        weight: Tensor,
        bias: Tensor | None,
        norm: BatchNorm | None,
        quantizer: WeightQuantizer,
    ) -> None:
        super().__init__()
        if quantizer.axis not in (None, operation.out_axis):
            wanted = f"one scale, or scales along axis {operation.out_axis} of the weight of {operation.kind}"
            raise BadArgument("quantizer", wanted=wanted, found=f"axis {quantizer.axis}")
        self._check(norm, operation.outputs(weight))
        self.operation = operation
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.norm = norm
        self.quantizer = quantizer
        self.frozen = False
        self.reads: tuple[TrainableActivation, ...] = ()
        with torch.no_grad():
            quantizer.start_(self.before_rounding())

    def _check(self, norm: BatchNorm | None, outputs: int) -> None:
        name = type(self).__name__
        if (norm is None) != (self.slope_goes == "nowhere"):
            wanted = "no batch norm" if norm is not None else "a batch norm"
            do = "Take NoNorm for layers without one, another scheme for layers with one."
            raise BadArgument(
                name, wanted=wanted, found="none" if norm is None else type(norm).__name__, do=do
            )
        if norm is not None:
            check_norm(name, norm, outputs)

    @abstractmethod
    def normalised(self, x: Tensor) -> Tensor:
        """Outputs while the norm trains; statistics move on."""

    def slope(self) -> Tensor | None:
        """``gamma / sqrt(running_var + eps)``, ``(out,)``; ``None`` without a norm."""
        if self.norm is None:
            return None
        return gamma_of(self.norm) * torch.rsqrt(full(running(self.norm)[1]) + self.norm.eps)

    def before_rounding(self) -> Tensor:
        """The float weight that is rounded when the layer is deployed."""
        slope = self.slope()
        weight = full(self.weight)
        return (
            weight if slope is None or self.slope_goes == "outside" else self.operation.scaled(weight, slope)
        )

    def folded_bias(self) -> Tensor | None:
        """``beta + (bias - running_mean) slope``, ``(out,)``; without a norm the bias itself."""
        slope = self.slope()
        if slope is None or self.norm is None:
            return self.bias
        return shift_of(self.norm, self.bias, full(running(self.norm)[0]), slope)

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias (rounded, as real numbers) of the one operation that evaluation runs."""
        slope, before = self.slope(), self.before_rounding()
        weight: Tensor = self.quantizer(before)
        if slope is not None and self.slope_goes == "outside":
            weight = self.operation.scaled(weight, slope)
        bias = self.folded_bias()
        if bias is None or not self._adds_integers():
            return weight, bias
        step = self._steps(self._scales(before, slope), weight.detach()) * self.reads[0].steps()[0]
        return weight, torch.where(bias.abs() < step * MOST_BIAS, round_straight(bias / step) * step, bias)

    def _adds_integers(self) -> bool:
        """Whether the bias is rounded to steps of the accumulator (Jacob et al., section 2.4)."""
        on = self.quantizer.enabled and self.quantizer.ONE_SCALE
        return on and bool(self.reads) and self.reads[0].enabled

    def _scales(self, before: Tensor, slope: Tensor | None) -> Tensor:
        """Scales of the weight with the norm inside, ``(out,)`` or ``()``; 0 where nothing is left."""
        scale = self.quantizer.scale(before)
        if scale.dim() and self.operation.transposed:
            scale = scale.repeat(self.operation.groups)  # axis 1 of the weight is one group's outputs
        return scale if slope is None or self.slope_goes != "outside" else scale * slope.detach().abs()

    def _steps(self, scale: Tensor, weight: Tensor) -> Tensor:
        """``scale``, but next to nothing where ``weight`` is all zero, for there it rounds the bias alone."""
        idle = (self.operation.rows(weight) == 0).all(1) | (scale < _LEAST)
        return torch.where(idle if scale.dim() else idle.all(), NEXT_TO_NOTHING, scale)

    @torch.no_grad()
    def deployed(self) -> Deployed:
        """The layer as it will run; equal to its outputs in evaluation mode.

        Where the slope goes outside, its size goes into the scales and its sign into the integers; a channel
        whose scale would be 0 in float32 gets zeros for integers, even of a 1-bit weight. A channel of zeros
        has a scale next to nothing, so that its bias, which is all that it gives, is not rounded away.

        Raises:
            UnsupportedOperation: Rounded weights are not integers times a scale (``ttq``); they are what
                :meth:`effective` says all the same.
        """
        weight, bias, slope = self.before_rounding(), self.folded_bias(), self.slope()
        integers, scale = self.quantizer.integers(weight), self._scales(weight, slope)
        if slope is not None and self.slope_goes == "outside":
            signs = slope.sign() * (scale >= _LEAST)
            integers = self.operation.scaled(integers.float(), signs).to(torch.int8)
        if bias is None:
            bias = weight.new_zeros(self.operation.outputs(weight))
        return Deployed(integers, self._steps(scale, integers), bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in, ...)`` to ``(batch, out, ...)``."""
        by_batch = self.norm is not None and not self.norm.track_running_stats  # they are estimated anew
        if by_batch or (self.training and not self.frozen):
            return self.normalised(x)
        return self.run(x, *self.effective())

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The operation; under autocast the bias, which holds means, is added in float32."""
        if bias is None or not torch.is_autocast_enabled(x.device.type):
            return self.operation(x, weight, bias)
        y = self.operation(x, weight)
        return (full(y) + self.over_outputs(bias, y)).to(y.dtype)

    def over_outputs(self, vector: Tensor, y: Tensor) -> Tensor:
        """A vector ``(out,)`` in a shape that meets the channels of an output ``y``."""
        return vector if self.operation.kind == "linear" else vector.view(-1, *[1] * (y.dim() - 2))

    def freeze_(self) -> None:
        """Hold the norm's statistics and normalise by them; scale and shift go on learning.

        As the training mode, it is no part of the state dict.
        """
        self.frozen = True

    def unfreeze_(self) -> None:
        """Let the norm follow its batches again."""
        self.frozen = False

    def extra_repr(self) -> str:
        state = ", frozen" if self.frozen else ""
        return (
            f"{self.operation.kind}, weight={tuple(self.weight.shape)}, bias={self.bias is not None}{state}"
        )


def check_norm(where: str, norm: BatchNorm, outputs: int) -> None:
    """Whether a norm can be multiplied into a layer with so many output channels.

    Raises:
        BadArgument: It has another number of channels.
        UnsupportedOperation: It keeps no statistics, or is a class of its own.
    """
    if type(norm) not in _PLAIN or norm.running_mean is None:
        found = "keeps no statistics" if type(norm) in _PLAIN else "may do more than normalise"
        raise UnsupportedOperation(
            where,
            wanted="a batch norm of PyTorch with running statistics",
            found=f"a {type(norm).__name__} that {found}",
            do="Leave the layer in float, or give it another norm.",
        )
    if norm.num_features != outputs:
        wanted = f"a norm of the layer's {outputs} channels"
        raise BadArgument(where, wanted=wanted, found=f"one of {norm.num_features}")


def running(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance.

    Raises:
        UnsupportedOperation: The norm has none for the moment, as while they are estimated anew.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise UnsupportedOperation(
            "batch norm",
            wanted="running statistics, which set the weight that is rounded",
            found="none: they are being estimated anew",
            do="Take the scheme plain, whose rounded weights do not depend on them.",
        )
    return norm.running_mean, norm.running_var


def gamma_of(norm: BatchNorm) -> Tensor:
    """Scale of a norm, ones where it has none."""
    gamma: Tensor | None = norm.weight
    return torch.ones_like(full(running(norm)[1])) if gamma is None else full(gamma)


def shift_of(norm: BatchNorm, bias: Tensor | None, mean: Tensor, slope: Tensor) -> Tensor:
    """Bias of a layer with a norm inside: ``beta + (bias - mean) slope``."""
    beta: Tensor | None = norm.bias
    shift = (-mean if bias is None else full(bias) - mean) * slope
    return shift if beta is None else full(beta) + shift


def full(x: Tensor) -> Tensor:
    """``x`` in float32 at least."""
    return x if x.dtype == torch.float64 else x.float()
