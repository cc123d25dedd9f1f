"""A quantized graph run on integers alone, as hardware without floats would run it.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018, arXiv 1712.05877, section 2.2. Between units flow unsigned 8-bit integers; a layer adds
its products to a 32-bit bias; a sum, join or mean adds integers; a multiplier and a shift bring all of them
to the next grid. What the plan left in float runs in float and is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from gracile.nn import (
    ActivationQuantizer,
    QuantizedBias,
    QuantizedModel,
    QuantizedWeight,
    SpatialMean,
    dequantize,
    quantize,
)

from ..lower import argument, op_name
from ..units import LAYERS, MATH, MOVES
from .accumulate import Accumulator, Overflow, accumulate
from .fixed_point import requantize


@dataclass(frozen=True, kw_only=True)
class IntegerRun:
    """What one run on integers gave.

    ``edges`` maps each quantized edge to its integers (uint8), ``floats`` lists what ran in float.
    """

    output: Any
    edges: dict[str, Tensor]
    floats: tuple[str, ...]


def integer_forward(
    quantized: QuantizedModel, *inputs: Tensor, accumulator_bits: int = 32, overflow: Overflow = "wrap"
) -> Any:
    """Outputs of a quantized model, computed with integers.

    Args:
        quantized: From :func:`gracile.quantize.ptq`.
        inputs: As for the model itself; the first quantizer makes integers of them.
        accumulator_bits: Width of the sums of products.
        overflow: ``wrap`` or ``saturate``, where a sum does not fit.

    Returns:
        What the model returns; real values of the last accumulators.

    Example:
        >>> from torch import nn
        >>> from gracile.quantize import ptq
        >>> images = torch.randn(8, 3, 8, 8)
        >>> quantized = ptq(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (images[:1],), [images])
        >>> step = quantized.plan.edges[-1].scale
        >>> bool((integer_forward(quantized, images) - quantized(images)).abs().max() <= 1.01 * step)
        True
    """
    return integer_run(quantized, *inputs, accumulator_bits=accumulator_bits, overflow=overflow).output


def integer_run(
    quantized: QuantizedModel, *inputs: Tensor, accumulator_bits: int = 32, overflow: Overflow = "wrap"
) -> IntegerRun:
    """As :func:`integer_forward`, with the integers of every edge and the list of what ran in float."""
    runner = Integers(quantized.network, Accumulator(bits=accumulator_bits, overflow=overflow))
    with torch.no_grad():
        output = runner.run(*inputs)
    return IntegerRun(output=output, edges=runner.edges, floats=tuple(dict.fromkeys(runner.floats)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A value on a grid: ``scale * (integers - zero_point)``."""

    integers: Tensor
    scale: float
    zero_point: int

    @property
    def centred(self) -> Tensor:
        """Integers without their zero point, int64."""
        return self.integers.long() - self.zero_point

    @property
    def real(self) -> Tensor:
        """As a float tensor."""
        return dequantize(self.integers, torch.tensor(self.scale), torch.tensor(self.zero_point))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pending:
    """Accumulators, not yet on a grid: ``sum_i scale_i integers_i``."""

    terms: tuple[tuple[Tensor, Tensor], ...] = field()

    @property
    def real(self) -> Tensor:
        """As a float tensor."""
        return sum((i * s for i, s in self.terms), torch.zeros((), dtype=torch.float64)).float()


class Integers(fx.Interpreter):
    """Runs a graph with quantizers on integers."""

    def __init__(self, module: fx.GraphModule, accumulator: Accumulator) -> None:
        super().__init__(module)
        self.accumulator = accumulator
        self.edges: dict[str, Tensor] = {}
        self.floats: list[str] = []

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        module = self.module.get_submodule(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, QuantizedWeight | QuantizedBias):
            return module
        if isinstance(module, ActivationQuantizer):
            return self._edge(module, args[0])
        name = op_name(n)
        if name == "getitem" and isinstance(args[0], tuple | list):
            return args[0][args[1]]
        if name in LAYERS and (found := self._layer(n, args)) is not None:
            return found
        if isinstance(module, SpatialMean) and isinstance(args[0], Stored):
            return _mean(args[0], module.keepdim)
        if name in MATH and _all_stored(args) and (found := _math(n, name, args)) is not None:
            return found
        if name in MOVES and args and isinstance(args[0], Stored):
            return _moved(n, args, kwargs)
        return self._in_float(n, name, args, kwargs)

    def _edge(self, module: ActivationQuantizer, value: Any) -> Stored:
        """Behind a quantizer: integers on its grid."""
        scale, zero, low, high = float(module.scale), int(module.zero_point), module.qmin, module.qmax
        if isinstance(value, Stored) and (value.scale, value.zero_point) == (scale, zero):
            integers = value.integers.clamp(low, high)
        elif isinstance(value, Stored):
            own = torch.tensor(value.scale, dtype=torch.float64)
            integers = requantize([(value.centred, own)], scale, zero, low, high)
        elif isinstance(value, Pending):
            integers = requantize(value.terms, scale, zero, low, high)
        else:
            integers = quantize(value, module.scale, module.zero_point, low, high)
        self.edges[module.name] = integers.to(torch.uint8)
        return Stored(integers=self.edges[module.name], scale=scale, zero_point=zero)

    def _layer(self, n: fx.Node, args: tuple[Any, ...]) -> Pending | None:
        """The accumulators of a layer, ``None`` where it reads or holds floats."""
        x, weight, bias = args[0], args[1], args[2] if len(args) > 2 else None
        if not (isinstance(x, Stored) and isinstance(weight, QuantizedWeight) and weight.axis in (None, 0)):
            return None
        if weight.scale.numel() not in (1, len(weight.integers)) or not (
            bias is None or isinstance(bias, QuantizedBias)
        ):
            return None
        zero = weight.zero_point.long().reshape(-1, *[1] * (weight.integers.dim() - 1))
        offset = None if bias is None else bias.integers
        sums = self.sums(n, x, weight.integers.long() - zero, offset, weight.name)
        scale = (x.scale * weight.scale.double()).reshape(1, -1, *[1] * (sums.dim() - 2))
        return Pending(terms=((sums, scale),))

    def sums(self, n: fx.Node, x: Stored, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
        """Accumulators of one call of ``layer``."""
        return accumulate(x.centred, weight, bias, n, self.accumulator)

    def _in_float(self, n: fx.Node, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What has no integer form, on the real values."""
        args, kwargs = tree_map(_real, args), tree_map(_real, kwargs)
        result = getattr(self, n.op)(n.target, args, kwargs)
        computes = n.op in ("call_function", "call_module", "call_method") and name not in MOVES
        if computes and isinstance(result, Tensor) and result.is_floating_point():
            self.floats.append(f"{n.name}: {name or n.target}")
        return result


def _real(value: Any) -> Any:
    if isinstance(value, Stored | Pending):
        return value.real
    return value() if isinstance(value, QuantizedWeight | QuantizedBias) else value


def _all_stored(args: tuple[Any, ...]) -> bool:
    operands = args[0] if args and isinstance(args[0], list | tuple) else args[:2]
    values = [a for a in operands if isinstance(a, Tensor | Stored | Pending)]
    return bool(values) and all(isinstance(a, Stored) for a in values)


def _term(x: Stored) -> tuple[Tensor, Tensor]:
    return x.centred, torch.tensor(x.scale, dtype=torch.float64)


def _mean(x: Stored, keepdim: bool) -> Pending:
    """Sum over the map, its size in the scale."""
    axes = list(range(2, x.integers.dim()))
    size = x.integers[0, 0].numel()
    scale = torch.tensor(x.scale / size, dtype=torch.float64)
    return Pending(terms=((x.centred.sum(axes, keepdim=keepdim), scale),))


def _math(n: fx.Node, name: str, args: tuple[Any, ...]) -> Pending | None:
    if name == "add":
        return Pending(terms=(_term(args[0]), _term(args[1])))
    if name == "mul":
        a, b = args[0], args[1]
        scale = torch.tensor(a.scale * b.scale, dtype=torch.float64)
        return Pending(terms=((a.centred * b.centred, scale),))
    if name == "cat":
        return _join(args[0], int(argument(n, "dim", 0)))
    return _pool(n, args[0]) if name == "avg_pool2d" else None


def _join(parts: list[Stored], dim: int) -> Pending:
    """Integers side by side, each part with its own scale."""
    integers = torch.cat([part.centred for part in parts], dim)
    where = integers.device
    scales = [torch.full((p.integers.shape[dim],), p.scale, dtype=torch.float64, device=where) for p in parts]
    shape = [1] * integers.dim()
    shape[dim] = -1
    return Pending(terms=((integers, torch.cat(scales).reshape(shape)),))


def _pool(n: fx.Node, x: Stored) -> Pending:
    """Sums over windows; how many values each averages is in the scale."""
    size, stride, padding = (argument(n, name) for name in ("kernel_size", "stride", "padding"))

    def window(values: Tensor, counted: bool) -> Tensor:
        return F.avg_pool2d(values, size, stride or size, padding, count_include_pad=counted)

    whole = size if isinstance(size, int) else size[0] * size[-1]
    whole = whole * size if isinstance(size, int) else whole
    sums = torch.round(window(x.centred.double(), True) * whole).long()
    ones = torch.ones_like(x.integers[:1, :1], dtype=torch.float64)
    count = torch.round(window(ones, True) * whole)
    if argument(n, "count_include_pad", True):
        count = torch.full_like(count, whole)
    return Pending(terms=((sums, x.scale / count),))


def _moved(n: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Values in other places; centred, so that zeros that a padding adds are zeros."""
    x = args[0]
    assert callable(n.target)
    result = n.target(x.centred.double(), *args[1:], **kwargs)

    def stored(value: Tensor) -> Stored:
        integers = (value + x.zero_point).to(torch.uint8)
        return Stored(integers=integers, scale=x.scale, zero_point=x.zero_point)

    return tuple(stored(v) for v in result) if isinstance(result, tuple | list) else stored(result)
