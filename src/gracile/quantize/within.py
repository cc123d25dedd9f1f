"""Accuracy-aware quantization: few bits where they do no harm, more where sensitivity asks for them.

Source: greedy by sensitivity, as in the partial quantization of Wu, Judd, Zhang, Isaev and Micikevicius,
"Integer quantization for deep learning inference: principles and empirical evaluation", 2020, arXiv
2004.09602. Where we differ: a layer that matters gets more bits and never floats, a raise is ranked by what
it gains for the bits it costs, and how many are needed is found by bisection, so that few models are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from gracile.errors import BadArgument, BudgetError
from gracile.nn import QuantizedModel, QuantizedWeight
from gracile.observe import Calibration
from gracile.records import BitCurve, BitRaise, BitTrail, BitTry, QuantPlan, QuantSensitivity

from .analysis.sensitivity import sensitivity as measure_sensitivity
from .bits import Bits
from .calibration import float32_batches
from .ptq import ptq
from .rounding import LeastSquares
from .scheme import Scheme
from .units import find_units

W4A4 = Scheme(weight_bits=4, activation_bits=4)
MOST = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Within:
    """A quantized model that keeps the accuracy, and how it was found."""

    model: QuantizedModel
    trail: BitTrail


def ptq_within(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: Calibration,
    evaluate: Callable[[nn.Module], float],
    *,
    drop: float = 1.0,
    start: Scheme = W4A4,
    sensitivity: QuantSensitivity | None = None,
    evaluations: int = 12,
    images: int = 64,
    cache: Path | None = None,
    on_try: Callable[[BitTry], None] | None = None,
) -> Within:
    """Quantize with few bits and raise them until at most ``drop`` points of accuracy are lost.

    Judged are the float model, ``start``, 8 bits everywhere, and then a bisection of the list of raises. The
    result is always a model that was judged to be good enough.

    Args:
        model: The folded float model; it is left as it was.
        inputs: Example inputs, any batch size.
        calibration: Batches of unlabelled inputs.
        evaluate: Accuracy of a model in percent, on data that is neither the test set nor the calibration.
        drop: Points that may be lost against the float model, at least 0.
        start: Bits to begin with, and how ranges and rounding are done all the way. Every try quantizes anew,
            so no rounding named is least squares here, not block reconstruction, which takes minutes.
        sensitivity: Curves measured before; else they are measured here.
        evaluations: Most calls of ``evaluate``, at least 3.
        images: Inputs whose outputs the sensitivity analysis compares.
        cache: Its file.
        on_try: Told of every quantized model that was judged.

    Raises:
        BadArgument: ``drop`` is negative or ``evaluations`` below 3.
        BudgetError: 8 bits everywhere lose more than ``drop``; the text says how much.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
        >>> data = torch.randn(32, 3, 8, 8)
        >>> labels = net(data).argmax(1)
        >>> def accuracy(found: nn.Module) -> float:
        ...     return 100 * float((found(data).argmax(1) == labels).float().mean())
        >>> result = ptq_within(net, (data[:1],), [data], accuracy, drop=10.0,
        ...                     start=Scheme(weight_bits=2, activation_bits=2, ends=Bits()))
        >>> result.trail.kept.accuracy >= 90
        True
    """
    if not drop >= 0:
        raise BadArgument("drop", wanted="points of accuracy, at least 0", found=f"{drop=}")
    if evaluations < 3:
        raise BadArgument("evaluations", wanted="at least 3", found=f"{evaluations=}")
    batches = list(float32_batches(calibration, model, len(inputs)))
    start = start if start.rounding is not None else replace(start, rounding=LeastSquares())
    reference = evaluate(model)
    judge = _Judge(
        quantize=lambda scheme: ptq(model, inputs, batches, scheme),
        evaluate=evaluate,
        least=reference - drop,
        on_try=on_try,
    )
    first = judge.quantized(start)
    if judge.enough(first, 0):
        return _result(first, (), judge, 0, reference, drop)
    top = judge.quantized(everywhere(start))
    if not judge.enough(top, None):
        raise BudgetError(
            "drop",
            wanted=f"at most {drop:g} points lost of {reference:.2f} %",
            found=f"{reference - judge.tries[-1].accuracy:.2f} points lost with {MOST} bits everywhere",
            do="Allow more, or choose another rounding or range estimator in start=.",
        )
    table = sensitivity
    if table is None:
        table = measure_sensitivity(model, inputs, batches, start, images=images, cache=cache)
    raises = path(table, first.plan, start.sum_bits)
    judge.tries[-1] = replace(judge.tries[-1], raises=len(raises))
    best, low, high = top, 0, len(raises)
    while high - low > 1 and len(judge.tries) + 1 < evaluations:
        middle = (low + high) // 2
        found = judge.quantized(scheme_after(start, table, first.plan, raises[:middle]))
        if judge.enough(found, middle):
            best, high = found, middle
        else:
            low = middle
    return _result(best, raises, judge, high, reference, drop)


def everywhere(scheme: Scheme) -> Scheme:
    """The scheme with 8 bits for everything."""
    return replace(scheme, weight_bits=MOST, activation_bits=MOST, sum_bits=MOST, ends=Bits(), layers={})


def path(table: QuantSensitivity, start: QuantPlan, sum_bits: int) -> tuple[BitRaise, ...]:
    """Raises up to 8 bits everywhere, those first that bring outputs nearest for the bits they cost.

    A raise costs the bits it adds: of the weights, or of the activations of one image. Sums come first: their
    containers have 8 bits anyway. Each raise goes to the number of bits with the best ratio (the lower convex
    hull of a curve).

    Args:
        table: Curves of weights and edges.
        start: The plan to begin with.
        sum_bits: Its bits of what no layer reads.
    """
    bits = {("weights", w.layer): w.bits for w in start.weights}
    bits |= {("activations", node): b for node, b in _edge_bits(start).items()}
    curves = {("weights", c.name): c for c in table.weights}
    curves |= {("activations", c.name): c for c in table.edges if c.readers}
    found = []
    if sum_bits < MOST and any(not c.readers for c in table.edges):
        gain = sum(c.at(sum_bits) - c.at(MOST) for c in table.edges if not c.readers)
        found.append(BitRaise(what="sums", name="", before=sum_bits, after=MOST, gain=gain))
    left = {key: bits[key] for key in curves if bits.get(key, MOST) < MOST}
    steps = {key: _step(curves[key], now) for key, now in left.items()}
    while steps:
        key = max(steps, key=lambda k: (steps[k][1], steps[k][0], k))
        after = steps[key][0]
        gain = curves[key].at(left[key]) - curves[key].at(after)
        found.append(BitRaise(what=key[0], name=key[1], before=left[key], after=after, gain=gain))
        left[key] = after
        steps.pop(key)
        if after < MOST:
            steps[key] = _step(curves[key], after)
    return tuple(found)


def _step(curve: BitCurve, now: int) -> tuple[int, float]:
    """The bits to go to, and what a bit that is added gains."""
    ratios = {b: (curve.at(now) - curve.at(b)) / ((b - now) * curve.values) for b in range(now + 1, MOST + 1)}
    best = max(ratios, key=lambda b: (ratios[b], b))
    return best, ratios[best]


def scheme_after(
    start: Scheme, table: QuantSensitivity, plan: QuantPlan, raises: Iterable[BitRaise]
) -> Scheme:
    """``start`` with the bits of every layer written out, raises carried out.

    Args:
        start: The scheme of ``plan``.
        table: For the layers that read each edge.
        plan: What ``start`` gave.
        raises: In order.
    """
    weights = {w.layer: w.bits for w in plan.weights}
    edges = _edge_bits(plan)
    sums = start.sum_bits
    for one in raises:
        if one.what == "weights":
            weights[one.name] = one.after
        elif one.what == "activations":
            edges[one.name] = one.after
        else:
            sums = one.after
    reads: dict[str, int] = {}
    for curve in table.edges:
        for layer in curve.readers:
            reads[layer] = max(reads.get(layer, 0), edges[curve.name])
    layers = {name: Bits(weights=b, activations=reads.get(name)) for name, b in weights.items()}
    return replace(start, layers=layers, sum_bits=sums)


@dataclass(kw_only=True)
class _Judge:
    """Quantizes, evaluates and remembers."""

    quantize: Callable[[Scheme], QuantizedModel]
    evaluate: Callable[[nn.Module], float]
    least: float
    on_try: Callable[[BitTry], None] | None

    def __post_init__(self) -> None:
        self.tries: list[BitTry] = []

    def quantized(self, scheme: Scheme) -> QuantizedModel:
        """The model under a scheme."""
        return self.quantize(scheme)

    def enough(self, found: QuantizedModel, raises: int | None) -> bool:
        """Whether its accuracy is kept."""
        accuracy = self.evaluate(found)
        weights, activations = mean_bits(found)
        one = BitTry(
            raises=raises or 0,
            weight_bits=weights,
            activation_bits=activations,
            accuracy=accuracy,
            enough=accuracy >= self.least,
        )
        self.tries.append(one)
        if self.on_try is not None:
            self.on_try(one)
        return one.enough


def mean_bits(model: QuantizedModel) -> tuple[float, float]:
    """Bits of a weight, and of an edge, on average."""
    sizes = [(m.integers.numel(), m.bits) for m in model.modules() if isinstance(m, QuantizedWeight)]
    count = sum(size for size, _ in sizes) or 1
    edges = [edge.bits for edge in model.plan.edges]
    return sum(size * bits for size, bits in sizes) / count, sum(edges) / (len(edges) or 1)


def bits_of(model: QuantizedModel) -> tuple[tuple[str, int, int], ...]:
    """Every quantized layer with the bits of its weights and of what it reads.

    Example:
        >>> import torch
        >>> net, data = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(4, 3, 8, 8)
        >>> bits_of(ptq(net, (data[:1],), [data], Scheme(weight_bits=4, ends=Bits())))
        (('0', 4, 8),)
    """
    edges = _edge_bits(model.plan)
    units = find_units(model.float_graph)
    reads = {
        layer.name: edges.get(layer.source.name) or edges[units.carried[layer.source].name]
        for layer in units.layers
    }
    return tuple((weight.layer, weight.bits, reads[weight.layer]) for weight in model.plan.weights)


def _edge_bits(plan: QuantPlan) -> dict[str, int]:
    """Bits of every edge as layers read it, by node."""
    static = {node: edge.bits for node, edge in (plan.own_grids | plan.layer_grids).items()}
    return static | {entry.node: entry.bits for entry in plan.dynamic}


def _result(
    model: QuantizedModel,
    raises: tuple[BitRaise, ...],
    judge: _Judge,
    chosen: int,
    reference: float,
    drop: float,
) -> Within:
    trail = BitTrail(
        reference=reference,
        drop=drop,
        raises=raises,
        tries=tuple(judge.tries),
        chosen=chosen,
        layers=bits_of(model),
    )
    return Within(model=model, trail=trail)
