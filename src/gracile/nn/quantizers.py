"""Quantizers as modules: they round in a forward pass and write QuantizeLinear / DequantizeLinear into ONNX.

Encodings are those that runtimes were measured to execute in integers: activations in an unsigned 8-bit
container whatever their bits (fewer bits are clipped between the two nodes, on the integers), weights in a
signed 8-bit container, biases in 32 bits with the scale of the accumulator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .affine import dequantize, quantize

NAME_KEY = "gracile.name"
"""Node metadata that carries the name of an edge, layer or bias through the exporter."""


class ActivationQuantizer(nn.Module):
    """Round activations to a per-tensor grid.

    Args:
        name: Name of the edge in the captured graph.
        scale: Step between neighbouring values, above 0.
        zero_point: Integer that stands for zero.
        qmin: Smallest integer, at least 0.
        qmax: Largest integer, at most 255.
        bits: Bits asked for, for reports.

    Example:
        >>> ActivationQuantizer("relu", 0.5, 0, 0, 255, 8)(torch.tensor([-1.0, 0.6])).tolist()
        [0.0, 0.5]
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, name: str, scale: float, zero_point: int, qmin: int, qmax: int, bits: int) -> None:
        super().__init__()
        self.name, self.qmin, self.qmax, self.bits = name, qmin, qmax, bits
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Round ``x``; gradients pass straight through inside the range."""
        if torch.onnx.is_in_onnx_export():
            return self._emit(x)
        if not (x.requires_grad and torch.is_grad_enabled()) and x.dtype == torch.float32:
            return self._rounded(x)
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.qmin, self.qmax
        )
        return rounded

    def _rounded(self, x: Tensor) -> Tensor:
        """The same to the last bit where no gradient is asked for; PyTorch's own operation is far slower."""
        zero = self.zero_point.to(x.dtype)
        q = (x * (1 / self.scale)).round_().add_(zero).clamp_(self.qmin, self.qmax)
        return q.sub_(zero).mul_(self.scale)

    def _emit(self, x: Tensor) -> Tensor:
        zero_point = self.zero_point.to(torch.uint8)
        about = {NAME_KEY: self.name}
        q = torch.onnx.ops.symbolic(
            "::QuantizeLinear",
            (x, self.scale, zero_point),
            dtype=torch.uint8,
            shape=x.shape,
            metadata_props=about,
        )
        if (self.qmin, self.qmax) != (0, 255):
            low, high = (torch.tensor(v, dtype=torch.uint8) for v in (self.qmin, self.qmax))
            q = torch.onnx.ops.symbolic("::Clip", (q, low, high), dtype=torch.uint8, shape=x.shape)
        out: Tensor = torch.onnx.ops.symbolic(
            "::DequantizeLinear", (q, self.scale, zero_point), dtype=x.dtype, shape=x.shape
        )
        return out

    def extra_repr(self) -> str:
        return (
            f"{self.name}: {self.bits} bits, scale={self.scale.item():.4g}, zero_point={int(self.zero_point)}"
        )


class _Stored(nn.Module):
    """Integers with scales that are turned into real values in the forward pass."""

    integers: Tensor
    scale: Tensor

    def __init__(
        self, name: str, integers: Tensor, scale: Tensor, axis: int | None, group: int | None = None
    ) -> None:
        super().__init__()
        self.name, self.axis, self.group = name, axis, group
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)

    def _zero_point(self) -> Tensor:
        return torch.zeros_like(self.scale, dtype=self.integers.dtype)

    def forward(self) -> Tensor:
        """The real values."""
        zero_point = self._zero_point()
        if not torch.onnx.is_in_onnx_export():
            return dequantize(self.integers, self.scale, zero_point, self.axis, self.group)
        if self.group is not None:
            return self._emit_groups(self.group)
        out: Tensor = torch.onnx.ops.symbolic(
            "::DequantizeLinear",
            (self.integers, self.scale, zero_point),
            {} if self.axis is None else {"axis": self.axis},
            dtype=torch.float32,
            shape=self.integers.shape,
            metadata_props={NAME_KEY: self.name},
        )
        return out

    def _emit_groups(self, group: int) -> Tensor:
        """Blocks of ONNX run along one axis of a matrix, so kernels are flattened for it."""
        flat = self.integers.flatten(1)
        block = group * (flat.shape[1] // self.integers.shape[1])
        out: Tensor = torch.onnx.ops.symbolic(
            "::DequantizeLinear",
            (flat, self.scale, self._zero_point()),
            {"axis": 1, "block_size": block},
            dtype=torch.float32,
            shape=flat.shape,
            version=21,
            metadata_props={NAME_KEY: self.name},
        )
        return out.reshape(self.integers.shape)


class QuantizedWeight(_Stored):
    """A weight kept as 8-bit integers.

    Args:
        name: Dotted name of the layer.
        weight: Float weight to store.
        scale: One positive number, or one per index of ``axis``, or of each one's groups in turn.
        zero_point: As ``scale``, whole numbers.
        qmin: Smallest integer, at least -128.
        qmax: Largest integer, at most 127.
        axis: Axis of the scales, ``None`` for one.
        bits: Bits asked for, for reports.
        group: Input channels (axis 1) that share a scale, ``None`` where ``axis`` says it all.

    Example:
        >>> QuantizedWeight("fc", torch.tensor([[0.6, -9.0]]), [0.5], [0], -127, 127, None, 8)().tolist()
        [[0.5, -9.0]]
    """

    zero_point: Tensor

    def __init__(
        self,
        name: str,
        weight: Tensor,
        scale: Sequence[float],
        zero_point: Sequence[int],
        qmin: int,
        qmax: int,
        axis: int | None,
        bits: int,
        group: int | None = None,
    ) -> None:
        entries = torch.tensor(scale, dtype=torch.float32, device=weight.device)
        zeros = torch.tensor(zero_point, dtype=torch.int8, device=weight.device)
        if axis is None:
            entries, zeros = entries.reshape(()), zeros.reshape(())
        if group is not None:
            entries, zeros = (v.reshape(len(weight), -1) for v in (entries, zeros))  # (out, groups)
        integers = quantize(weight.detach().float(), entries, zeros, qmin, qmax, axis, group).to(torch.int8)
        super().__init__(name, integers, entries, axis, group)
        self.bits = bits
        self.register_buffer("zero_point", zeros)

    def _zero_point(self) -> Tensor:
        return self.zero_point

    @property
    def accumulator_scale(self) -> Tensor:
        """The weight's part of a bias's step: the largest scale of each channel's groups."""
        return self.scale if self.group is None else self.scale.amax(1)

    def extra_repr(self) -> str:
        shape = f"{self.name}: {self.bits} bits, {tuple(self.integers.shape)}, axis={self.axis}"
        return shape if self.group is None else f"{shape}, group={self.group}"


class QuantizedBias(_Stored):
    """A bias kept as 32-bit integers in units of the accumulator, ``input_scale * weight_scale``.

    Args:
        name: Dotted name of the layer.
        bias: Float bias ``(out,)``.
        scale: Accumulator scale, one entry or ``(out,)``.

    Example:
        >>> QuantizedBias("fc", torch.tensor([0.123]), torch.tensor([0.01]))().tolist()
        [0.11999999731779099]
    """

    def __init__(self, name: str, bias: Tensor, scale: Tensor) -> None:
        entries = scale.detach().float().expand(bias.shape).clone()
        wide = torch.round(bias.detach().double() / entries.double())
        integers = wide.clamp(-(2**31) + 1, 2**31 - 1).to(torch.int32)
        super().__init__(name, integers, entries, 0)

    def extra_repr(self) -> str:
        return f"{self.name}: 32 bits, {tuple(self.integers.shape)}"
