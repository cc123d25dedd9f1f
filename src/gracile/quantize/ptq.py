"""Static post-training quantization: ranges from a few unlabelled batches, then integers.

Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, arXiv
1806.08342, section 3; biases are in 32 bits with the scale of the accumulator (Jacob et al., arXiv
1712.05877, section 2.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.nn import QuantizedModel, quantize
from gracile.observe import Histogram
from gracile.records import EdgeQuant, QuantPlan, Skipped, WeightQuant

from .bias_correction import bias_shifts, output_error, split_images
from .grid import Grid
from .lower import lower
from .model import assemble, fetch
from .rounding import Inputs, LeastSquares, pack, round_to_keep_output, watch_inputs
from .scheme import W8A8, RangeEstimator, Scheme
from .units import Layer, Units, find_units

_MOST = 2**30  # largest bias, in steps of the accumulator


def ptq(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: Iterable[Tensor | tuple[Tensor, ...]],
    scheme: Scheme = W8A8,
) -> QuantizedModel:
    """Quantize a trained model with the ranges that calibration batches show.

    Fold normalisations first: one that is left runs in float and is recorded in ``plan.skipped``.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was.
        inputs: Example inputs, any batch size.
        calibration: Batches of unlabelled inputs, the model's own preparation applied.
        scheme: Bits, granularity, symmetry, range estimators.

    Raises:
        BadArgument: ``calibration`` is empty.
        NonFiniteError: Weights or activations hold NaN or infinity; the layer is named.
        CaptureError: ``torch.export`` refuses the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> images = torch.randn(16, 3, 8, 8)
        >>> quantized = ptq(net, (images[:1],), images.split(8))
        >>> [edge.node for edge in quantized.plan.edges]
        ['input_1', 'relu', 'conv2d_1']
        >>> bool((quantized(images) - net(images)).abs().max() < 0.05)
        True
    """
    batches = [batch if isinstance(batch, tuple) else (batch,) for batch in calibration]
    if not batches:
        raise BadArgument("calibration", wanted="at least one batch", found="none")
    float_graph = lower(model, inputs)
    units = find_units(float_graph)
    _check_finite(float_graph, units)
    edges = _edge_grids(float_graph, units, batches, scheme)
    scales = {edge.node: edge.scale for edge in edges}
    weights = tuple(_weight_grid(float_graph, layer, units, scales, scheme) for layer in _once(units))
    if isinstance(scheme.rounding, LeastSquares) and scheme.weight_symmetric:
        seen = watch_inputs(float_graph, units, batches, scheme.rounding.images)
        weights = tuple(
            _round(float_graph, layer, grid, seen[layer.name], scheme.rounding)
            for layer, grid in zip(_once(units), weights, strict=True)
        )
    plan = QuantPlan(
        weights=weights,
        edges=edges,
        estimator=f"weights {scheme.weight_range}, activations {scheme.activation_range}",
        skipped=tuple(_merged(units.skipped)),
    )
    quantized = assemble(float_graph, plan)
    if not scheme.bias_correction:
        return quantized
    learn, judge = split_images(batches)
    shifts = bias_shifts(float_graph, quantized.network, units, learn)
    plan = replace(plan, weights=tuple(_shifted(w, shifts.get(w.layer, ())) for w in plan.weights))
    corrected = assemble(float_graph, plan)
    better = output_error(corrected, judge) < output_error(quantized, judge)
    return corrected if better else quantized


def _shifted(weight: WeightQuant, shift: tuple[float, ...]) -> WeightQuant:
    if not shift:
        return weight
    own = weight.bias_shift or (0.0,) * len(shift)
    return replace(weight, bias_shift=tuple(a + b for a, b in zip(own, shift, strict=True)))


class _Watch(fx.Interpreter):
    """Runs a graph and shows the values of chosen nodes to their histograms."""

    def __init__(self, module: fx.GraphModule, seen: dict[fx.Node, Histogram]) -> None:
        super().__init__(module)
        self.seen = seen

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n in self.seen:
            self.seen[n].update(value)
        return value


def _edge_grids(
    module: fx.GraphModule, units: Units, batches: list[tuple[Tensor, ...]], scheme: Scheme
) -> tuple[EdgeQuant, ...]:
    names = {layer.node: layer.name for layer in units.layers}
    seen = {}
    for node in units.owners:
        made_by = units.fused.get(node, node)
        seen[node] = Histogram(names.get(made_by, node.name))
    watch = _Watch(module, seen)
    with torch.no_grad():
        for batch in batches:
            watch.run(*batch)
    estimator = scheme.activation_range
    assert not isinstance(estimator, str)  # Scheme looks names up
    return tuple(_edge(node, histogram, estimator, scheme) for node, histogram in seen.items())


def _edge(node: fx.Node, seen: Histogram, estimator: RangeEstimator, scheme: Scheme) -> EdgeQuant:
    bits = scheme.activation_bits
    found = estimator.of_histogram(seen, bits=bits, signed=False, symmetric=scheme.activation_symmetric)
    return EdgeQuant(
        node=node.name,
        bits=bits,
        qmin=found.qmin,
        qmax=found.qmax,
        scale=float(found.scale),
        zero_point=int(found.zero_point),
    )


def _weight_grid(
    module: fx.GraphModule, layer: Layer, units: Units, scales: dict[str, float], scheme: Scheme
) -> WeightQuant:
    weight = fetch(module, str(layer.weight.target)).detach().float()
    estimator = scheme.weight_range
    assert not isinstance(estimator, str)
    axis = scheme.weight_axis
    found = estimator(
        weight, bits=scheme.weight_bits, signed=True, symmetric=scheme.weight_symmetric, axis=axis
    )
    scale = found.scale
    if layer.bias is not None:  # the bias must fit 32 bits, also where all weights are (nearly) zero
        bias = fetch(module, str(layer.bias.target)).detach().float().abs()
        floor = bias / (scales[units.carried[layer.source].name] * _MOST)
        scale = torch.maximum(scale, floor if axis is not None else floor.max())
    return _plan_weight(layer.name, scheme.weight_bits, axis, found, scale)


def _plan_weight(name: str, bits: int, axis: int | None, found: Grid, scale: Tensor) -> WeightQuant:
    return WeightQuant(
        layer=name,
        bits=bits,
        qmin=found.qmin,
        qmax=found.qmax,
        axis=axis,
        scale=tuple(scale.reshape(-1).tolist()),
        zero_point=tuple(int(z) for z in found.zero_point.reshape(-1).tolist()),
    )


def _round(
    module: fx.GraphModule, layer: Layer, plan: WeightQuant, seen: Inputs, how: LeastSquares
) -> WeightQuant:
    """The plan of a layer with its weights rounded to keep its output."""
    weight = fetch(module, str(layer.weight.target)).detach().float()
    groups, inputs = seen.mean.shape
    scale = torch.tensor(plan.scale, device=weight.device).expand(len(weight))
    rows, steps = weight.reshape(groups, -1, inputs), scale.reshape(groups, -1)
    best = round_to_keep_output(rows, steps, seen.covariance, plan.qmin, plan.qmax, how.damping)
    near = quantize(rows, steps[:, :, None], torch.zeros(()), plan.qmin, plan.qmax)
    lost = rows - best * steps[:, :, None]
    shift = (lost @ seen.mean[:, :, None]).reshape(-1)  # what rounding takes from the mean output
    return replace(plan, moved=pack(best - near), bias_shift=tuple(shift.tolist()))


def _once(units: Units) -> list[Layer]:
    """Layers by name; one that is called twice has one weight."""
    return list({layer.name: layer for layer in reversed(units.layers)}.values())[::-1]


def _merged(skipped: list[Skipped]) -> list[Skipped]:
    return list(dict.fromkeys(skipped))


def _check_finite(module: fx.GraphModule, units: Units) -> None:
    for layer in units.layers:
        for node in (layer.weight, layer.bias):
            if node is not None and not bool(torch.isfinite(fetch(module, str(node.target))).all()):
                raise NonFiniteError(
                    layer.name,
                    wanted="finite weights",
                    found=f"NaN or infinity in {node.target}",
                    do="Load the trained weights again, or train with a smaller learning rate.",
                )
