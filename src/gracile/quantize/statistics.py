"""Mean and standard deviation of every value in a graph, computed from its parameters alone.

Source: Nagel, van Baalen, Blankevoort and Welling, "Data-free quantization through weight equalization and
bias correction", ICCV 2019, arXiv 1906.04721, section 4 and appendix C: the output of a folded batch norm is
taken for normal with mean ``beta`` and deviation ``|gamma|``, an activation clips it.

Where we go further: the graph itself is run on the moments, so whatever lies between two norms is covered.
Entries are taken for independent: a layer without a norm gives ``W mean + b`` and ``W^2 variance``, a sum
adds both, a product multiplies them; pads, slices and concatenations are carried out literally; an average
keeps the deviation, since neighbours are alike; a function of one value is integrated numerically. Ranges ask
for the largest deviation that a sum can have: on ResNet-56 independent branches made the range of the last
sum 7 where images reach 30, and the squared error of the logits 0.08 of their variance in place of 0.002.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.nn import SpatialMean

from .lower import argument, module_of, op_name, value_of
from .moments import FIELDS, Moments, normal
from .ranges import RANGES, MinMax, RangeEstimator
from .units import LAYERS, MOVES

Known = Mapping[str, tuple[Tensor, Tensor]]
"""Node name to mean and standard deviation of its channels (axis 1)."""

_KEEP = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"})
_AVERAGES = frozenset(
    {"avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "mean", "upsample_bilinear2d"}
)
_POINTS = 65  # of a function of one value, over six deviations on each side
_REACH = 4.0  # of standardised inputs


@dataclass(frozen=True, kw_only=True)
class DataFree:
    """What is assumed of a network when there are no calibration data.

    Args:
        sigmas: Reach of a range in standard deviations on each side of the mean, above 0.
        input_range: Smallest and largest value of the inputs, as they enter the model. ``None``: inputs have
            mean 0 and deviation 1 and lie within -4 to 4, which standardised images do.
        bias_correction: Put what rounding does to the mean of each layer's output into its bias.
        weight_range: Range estimator for weights in place of the scheme's, an object or a name in ``RANGES``.
            SQuant lets errors cancel, which clipped weights do not: on ResNet-56 with 3-bit weights the
            squared error of the logits was 0.03 of their variance with min-max, 0.11 with least squares.

    Example:
        >>> DataFree(input_range=(0.0, 1.0)).sigmas
        6.0
    """

    sigmas: float = 6.0
    input_range: tuple[float, float] | None = None
    bias_correction: bool = True
    weight_range: RangeEstimator | str = field(default_factory=MinMax)

    def __post_init__(self) -> None:
        if not self.sigmas > 0:
            raise BadArgument("sigmas", wanted="above 0", found=f"{self.sigmas=}")
        if isinstance(self.weight_range, str):
            if self.weight_range not in RANGES:
                raise BadArgument(
                    "weight_range", wanted=f"one of {', '.join(RANGES)}", found=repr(self.weight_range)
                )
            object.__setattr__(self, "weight_range", RANGES[self.weight_range]())
        if self.input_range is not None:
            object.__setattr__(self, "input_range", tuple(float(v) for v in self.input_range))
            if len(self.input_range) != 2 or not self.input_range[0] < self.input_range[1]:
                raise BadArgument(
                    "input_range", wanted="the smallest and the largest value", found=f"{self.input_range=}"
                )


def standardised(inputs: Sequence[Tensor], span: tuple[float, float] | None = None) -> list[Moments | Tensor]:
    """What is believed of the model's inputs.

    Args:
        inputs: Example inputs; only their shapes are used, and the values of those that hold whole numbers.
        span: Smallest and largest value; spread evenly between them. ``None``: mean 0, deviation 1, within
            -4 to 4.
    """
    found: list[Moments | Tensor] = []
    for x in inputs:
        one = x[:1].detach().cpu() if x.dim() else x.detach().cpu()
        if not one.is_floating_point():
            found.append(one)
            continue
        zeros = torch.zeros(one.shape, dtype=torch.float64)
        low, high = (-_REACH, _REACH) if span is None else span
        mu, sigma = (0.0, 1.0) if span is None else ((low + high) / 2, (high - low) / math.sqrt(12))
        found.append(normal(zeros + mu, zeros + sigma, zeros + low, zeros + high))
    return found


def propagate(
    module: fx.GraphModule, inputs: Sequence[Moments | Tensor], known: Known, *, alike: bool = False
) -> dict[fx.Node, Moments]:
    """Moments of every node that they reach.

    Args:
        module: A lowered graph.
        inputs: From :func:`standardised`.
        known: Nodes whose moments need not be computed, from
            :func:`~gracile.quantize.graph_fold.fold_norms_`.
        alike: What meets in a sum goes up and down together, so that deviations add up: no sum can vary more.
            Else it is independent.

    Example:
        >>> from torch import nn
        >>> from gracile.quantize.lower import lower
        >>> x = torch.zeros(1, 3, 4, 4)
        >>> graph = lower(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), (x,))
        >>> known = {"conv2d": (torch.zeros(2), torch.ones(2))}
        >>> found = propagate(graph, standardised((x,)), known)
        >>> {node.name: round(m.mean.mean().item(), 2) for node, m in found.items()}
        {'input_1': 0.0, 'conv2d': 0.0, 'relu': 0.4}
    """
    walk = _Walk(module, known, alike)
    with torch.no_grad():
        walk.run(*inputs)
    return walk.found


def required(found: Mapping[fx.Node, Moments], node: fx.Node) -> Moments:
    """Moments of ``node``.

    Raises:
        UnsupportedOperation: None reached it; the operation that stopped them is named.
    """
    if node in found:
        return found[node]
    first = node
    while True:  # back to the operation that no rule covers
        lost = [n for n in first.all_input_nodes if n.op != "get_attr" and n not in found]
        if not lost:
            break
        first = lost[0]
    raise UnsupportedOperation(
        module_of(first) or first.name,
        wanted="operations that means and deviations can be carried through",
        found=f"{op_name(first) or first.name}, so nothing is known about {node.name}",
        do="Give calibration images.",
    )


class _Lost:
    """A value that no rule covers."""


class _Walk(fx.Interpreter):
    """Runs a graph on moments; constants stay tensors."""

    def __init__(self, module: fx.GraphModule, known: Known, alike: bool) -> None:
        super().__init__(module)
        self.known, self.alike = known, alike
        self.found: dict[fx.Node, Moments] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return None
        value = self._value(n)
        if n.name in self.known and value_of(n) is not None:
            value = self._from_norm(n, value)
        if isinstance(value, Moments):
            self.found[n] = value
        return value

    def _value(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        parts = [self.env[source] for source in n.all_input_nodes]
        if any(isinstance(part, _Lost) for part in parts):
            return _Lost()
        beliefs = [part for part in parts if isinstance(part, Moments) or _holds(part)]
        if not beliefs:
            return _constant(super().run_node(n))
        if op_name(n) == "sym_size":
            return beliefs[0].shape[args[1]]
        rule = self._rule(n)
        return _Lost() if rule is None else rule(n, args, kwargs)

    def _rule(self, n: fx.Node) -> Callable[[fx.Node, Any, Any], Any] | None:
        name = op_name(n)
        if n.op == "call_module":
            own = self.module.get_submodule(str(n.target))
            return self._average if isinstance(own, SpatialMean) else None
        if name in LAYERS or name.startswith("conv_transpose"):
            return self._layer
        if name in ("add", "mul", "sub"):
            return self._pair
        if name in ("relu", "relu6", "hardtanh", "clamp", "clamp_min"):
            return self._clip
        if name in MOVES or name in _KEEP or name in ("cat", "flip", "roll"):
            return self._move
        if name in _AVERAGES:
            return self._average
        if torch.Tag.pointwise in getattr(n.target, "tags", ()) and len(n.all_input_nodes) == 1:
            return self._function
        return None

    def _from_norm(self, n: fx.Node, value: Any) -> Moments:
        mean, std = (part.double().cpu() for part in self.known[n.name])
        shape = value.shape if isinstance(value, Moments) else (1, *_sizes(n)[1:])
        view = (1, -1, *[1] * (len(shape) - 2))
        return normal(mean.reshape(view).expand(shape), std.reshape(view).expand(shape))

    def _layer(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        x, weight, *rest = args
        if not isinstance(x, Moments) or isinstance(weight, Moments):
            return _Lost()
        bias = rest[0] if rest else kwargs.get("bias")
        options = {k: v for k, v in kwargs.items() if k != "bias"}
        mean = n.target(x.mean, weight, bias, *rest[1:], **options)  # type: ignore[operator]
        variance = n.target(x.variance, weight.square(), None, *rest[1:], **options)  # type: ignore[operator]
        return normal(mean, variance.clamp(min=0).sqrt())

    def _pair(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        a, b = (_as_moments(x) for x in args[:2])
        if op_name(n) == "mul":
            return _product(a, b)
        factor = float(kwargs.get("alpha", 1)) * (-1 if op_name(n) == "sub" else 1)
        b = b if factor == 1 else _product(b, _as_moments(factor))
        (least_a, most_a), (least_b, most_b) = (_bounds(m) for m in (a, b))
        together = 2 * (a.variance * b.variance).sqrt() if self.alike else 0.0
        sigma = (a.variance + b.variance + together).sqrt()
        return normal(a.mean + b.mean, sigma, least_a + least_b, most_a + most_b)

    def _clip(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        name, x = op_name(n), args[0]
        if name in ("relu", "relu6"):
            return x.clip(0.0, math.inf if name == "relu" else 6.0)
        low, high = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
        bounds = argument(n, low, None), argument(n, high, None)
        if any(isinstance(bound, fx.Node) for bound in bounds):
            return _Lost()
        return x.clip(
            -math.inf if bounds[0] is None else float(bounds[0]),
            math.inf if bounds[1] is None else float(bounds[1]),
        )

    def _move(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        if op_name(n) == "getitem":
            return args[0][args[1]]
        sides = []
        for name in FIELDS:
            part = _side(args, name), _side(kwargs, name)
            sides.append(n.target(*part[0], **part[1]))  # type: ignore[operator]
        if isinstance(sides[0], Tensor):
            return Moments(**dict(zip(FIELDS, sides, strict=True)))
        return tuple(Moments(**dict(zip(FIELDS, parts, strict=True))) for parts in zip(*sides, strict=True))

    def _average(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Moments):
            return _Lost()
        call: Any = self.module.get_submodule(str(n.target)) if n.op == "call_module" else n.target
        x = args[0]

        def mean(part: Tensor) -> Tensor:
            averaged: Tensor = call(part, *args[1:], **kwargs)
            return averaged

        low, high = _bounds(x)
        least = torch.where(torch.isfinite(low), low, -torch.inf)
        return normal(mean(x.mean), mean(x.variance).clamp(min=0).sqrt(), mean(least), mean(high))

    def _function(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        x = args[0]
        if not isinstance(x, Moments) or any(isinstance(a, Moments) for a in args[1:]):
            return _Lost()
        z = torch.linspace(-6, 6, _POINTS, dtype=torch.float64)
        weight = torch.exp(-0.5 * z.square())
        weight = weight / weight.sum()
        points = [torch.minimum(torch.maximum(x.mu + x.sigma * at, x.low), x.high) for at in z.tolist()]
        call: Any = n.target
        values = torch.stack([call(point, *args[1:], **kwargs) for point in points])
        share = weight.reshape(-1, *[1] * x.mu.dim())
        mean = (values * share).sum(0)
        variance = ((values - mean).square() * share).sum(0)
        return normal(mean, variance.sqrt(), values.amin(0), values.amax(0))


def _as_moments(x: Any) -> Moments:
    if isinstance(x, Moments):
        return x
    mu = torch.as_tensor(x, dtype=torch.float64)
    return normal(mu, torch.zeros_like(mu), mu, mu)


def _bounds(x: Moments) -> tuple[Tensor, Tensor]:
    return torch.maximum(x.low, x.least), torch.minimum(x.high, x.most)


def _product(a: Moments, b: Moments) -> Moments:
    """Of independent values: ``E[xy] = E[x] E[y]`` and ``E[x^2 y^2] = E[x^2] E[y^2]``."""
    mean = a.mean * b.mean
    second = (a.variance + a.mean.square()) * (b.variance + b.mean.square())
    ends = [torch.nan_to_num(x * y, nan=0.0) for x in _bounds(a) for y in _bounds(b)]
    corners = torch.stack([end.expand(mean.shape) for end in ends])
    return normal(mean, (second - mean.square()).clamp(min=0).sqrt(), corners.amin(0), corners.amax(0))


def _holds(part: object) -> bool:
    return isinstance(part, list | tuple) and any(isinstance(p, Moments) for p in part)


def _side(part: Any, name: str) -> Any:
    """Arguments with one field in place of the moments."""
    if isinstance(part, Moments):
        return getattr(part, name)
    if isinstance(part, dict):
        return {key: _side(value, name) for key, value in part.items()}
    return type(part)(_side(p, name) for p in part) if isinstance(part, list | tuple) else part


def _constant(value: Any) -> Any:
    """In float64 and on the CPU, as moments are."""
    if not isinstance(value, Tensor):
        return value
    return value.double().cpu() if value.is_floating_point() else value.cpu()


def _sizes(n: fx.Node) -> list[int]:
    value = value_of(n)
    assert value is not None
    return [int(s) if isinstance(s, int) else 1 for s in value.shape]
