"""A float layer with its batch norm beside a scheme of quantization-aware training: what must be equal."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.quantize.qat.batch_norm import QatLayer
from gracile.quantize.qat.operation import Operation
from gracile.quantize.qat.straight import straight
from gracile.quantize.qat.weights.base import WeightQuantizer

NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Largest(WeightQuantizer):
    """The plainest quantizer: the largest weight of each scale sets the step; gradients pass."""

    BITS = tuple(range(1, 9))

    def scale(self, weight: Tensor) -> Tensor:
        largest = self.rows(weight.detach().float()).abs().amax(1)
        return self.per_scale(torch.where(largest > 0, largest / self.qmax, torch.ones_like(largest)))

    def _codes(self, weight: Tensor) -> Tensor:
        codes = torch.round(weight / self.spread(self.scale(weight), weight))
        return torch.where(weight < 0, -1.0, 1.0) if self.bits == 1 else codes

    def _fake(self, weight: Tensor) -> Tensor:
        value = self._codes(weight.detach()) * self.spread(self.scale(weight), weight)
        return straight(value, weight)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One layer and its norm; ``rank`` 0 is a linear layer."""

    rank: int
    transposed: bool = False
    groups: int = 1
    width: int = 2
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    output_padding: int = 0
    bias: bool = False
    affine: bool = True
    eps: float = 1e-5
    momentum: float | None = 0.1
    batch: int = 4
    seed: int = 0

    def layer(self) -> nn.Module:
        """The float layer."""
        inputs, outputs = self.width * self.groups, 3 * self.groups
        if self.rank == 0:
            return nn.Linear(inputs, outputs, bias=self.bias)
        numbers: dict[str, Any] = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "bias": self.bias,
        }
        if self.transposed:
            numbers["output_padding"] = self.output_padding
            return TRANSPOSED[self.rank](inputs, outputs, 2, **numbers)
        return CONVS[self.rank](inputs, outputs, 2, **numbers)

    def pair(self) -> nn.Sequential:
        """Layer and norm in float64, every number away from its default, some slopes negative."""
        draw = torch.Generator().manual_seed(self.seed)
        layer = self.layer()
        norm = NORMS[self.rank](3 * self.groups, eps=self.eps, momentum=self.momentum, affine=self.affine)
        pair = nn.Sequential(layer, norm).double()
        with torch.no_grad():
            for name, tensor in pair.state_dict().items():
                if tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
                    tensor.copy_(noise.abs() + 0.3 if name.endswith("var") else noise)
        return pair

    def inputs(self, count: int) -> list[Tensor]:
        """Batches, each with a mean and a size of its own."""
        draw = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.batch, self.width * self.groups, *[5] * self.rank)
        shift = [float(i) - 1 for i in range(count)]
        return [
            torch.randn(shape, generator=draw, dtype=torch.float64) * (1 + i) + s for i, s in enumerate(shift)
        ]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Ranks, transposed or not, strides, paddings, dilations, groups, eps, momentum, bias."""
    rank = draw(st.integers(0, 3))
    shared: dict[str, Any] = {
        "rank": rank,
        "bias": draw(st.booleans()),
        "affine": draw(st.booleans()),
        "eps": draw(st.sampled_from([1e-5, 1e-3, 0.5])),
        "momentum": draw(st.sampled_from([0.1, 0.9, 1.0, None])),
        "width": draw(st.integers(1, 3)),
        "batch": draw(st.integers(2, 5)),
        "seed": draw(st.integers(0, 1000)),
    }
    if rank == 0:
        return Case(**shared)
    transposed = draw(st.booleans())
    stride = draw(st.integers(1, 2))
    return Case(
        **shared,
        transposed=transposed,
        stride=stride,
        padding=draw(st.integers(0, 1)),
        dilation=draw(st.integers(1, 2)),
        groups=draw(st.integers(1, 3)),
        output_padding=draw(st.integers(0, stride - 1)) if transposed else 0,
    )


def built(
    scheme: type[QatLayer],
    pair: nn.Sequential,
    *,
    bits: int = 4,
    per_channel: bool = False,
    off: bool = False,
) -> QatLayer:
    """A scheme over copies of a layer and its norm."""
    layer, norm = copy.deepcopy(pair)
    operation = Operation.of(layer)
    axis = operation.out_axis if per_channel else None
    channels = layer.weight.shape[axis] if axis is not None else None
    quantizer = Largest(bits, axis=axis, channels=channels)
    quantizer.enabled = not off
    return scheme(operation, layer.weight, layer.bias, norm, quantizer)


def named(pair: nn.Sequential) -> dict[str, nn.Parameter]:
    """Parameters of a float pair under the names that a scheme gives them."""
    own = {"0.weight": "weight", "0.bias": "bias", "1.weight": "norm.weight", "1.bias": "norm.bias"}
    return {own[name]: p for name, p in pair.named_parameters()}


def rounded(weight: Tensor, bits: int) -> Tensor:
    """``weight`` on the grid of :class:`Largest`, one scale, written out again."""
    step = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.round(weight / step) * step


def same_training(layer: QatLayer, pair: nn.Sequential, inputs: list[Tensor], lr: float = 0.05) -> None:
    """Outputs, all gradients and statistics agree over some steps of gradient descent, which both take."""
    for x in inputs:
        both = []
        for module in (layer, pair):
            own = x.clone().requires_grad_()
            y = module(own)
            weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
            module.zero_grad()
            (weights * y.square()).mean().backward()
            both.append((y, own.grad))
        torch.testing.assert_close(both[0], both[1], rtol=1e-7, atol=1e-9)
        found, wanted = dict(layer.named_parameters()), named(pair)
        assert found.keys() == wanted.keys()
        for name, parameter in wanted.items():
            torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-6, atol=1e-8, msg=name)
        same_statistics(layer, pair)
        with torch.no_grad():
            for module in (layer, pair):
                for parameter in module.parameters():
                    parameter -= lr * parameter.grad


def same_statistics(layer: QatLayer, pair: nn.Sequential) -> None:
    """Running statistics and the count of batches agree."""
    assert layer.norm is not None
    wanted = dict(pair[1].named_buffers())
    torch.testing.assert_close(dict(layer.norm.named_buffers()), wanted)


def same_evaluation(layer: QatLayer, pair: nn.Sequential, x: Tensor) -> None:
    """Outputs agree outside training."""
    layer.eval()
    pair.eval()
    torch.testing.assert_close(layer(x), pair(x), rtol=1e-7, atol=1e-9)


def trained(layer: QatLayer, inputs: list[Tensor], lr: float = 0.02) -> QatLayer:
    """The layer in float32 after a step on each batch, in evaluation mode."""
    layer.float().train()
    for x in inputs:
        layer.zero_grad()
        layer(x.float()).square().mean().backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter -= lr * parameter.grad.clamp(-1, 1)
    return layer.eval()


def as_one_operation(layer: QatLayer, x: Tensor) -> Tensor:
    """What the deployed numbers compute, in float64."""
    found = layer.deployed()
    assert found.integers.dtype == torch.int8
    assert bool((found.scale > 0).all())
    weight = layer.operation.scaled(found.integers.double(), found.scale.double())
    return layer.operation(x.double(), weight, found.bias.double())


def deploys(layer: QatLayer, x: Tensor) -> None:
    """What is deployed equals what evaluation computes."""
    with torch.no_grad():
        found, wanted = as_one_operation(layer, x), layer(x.float()).double()
    size = float(wanted.abs().max()) + 1e-6
    torch.testing.assert_close(found / size, wanted / size, rtol=0, atol=2e-5)
