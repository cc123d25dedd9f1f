"""Grids of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx

from gracile.errors import NonFiniteError
from gracile.nn import QuantizedWeight
from gracile.records import EdgeQuant, WeightQuant

from .grid import MOST_BIAS as MOST_BIAS
from .grid import Grid
from .lower import fetch
from .reduced_range import grid_bits, reduced_layers
from .rounding import unpack
from .scheme import Scheme
from .units import Layer, Units


def weight_grids(
    module: fx.GraphModule,
    units: Units,
    edges: tuple[EdgeQuant, ...],
    scheme: Scheme,
    bits: Mapping[str, tuple[int, int]],
) -> tuple[WeightQuant, ...]:
    """A grid for the weights of every layer, each rounded to the nearest."""
    scales = {edge.node: edge.scale for edge in edges if edge.readers != "rest"}
    reduced = reduced_layers(units, bits, scheme.reduce_range)
    return tuple(
        _grid(module, layer, units, scales, scheme, bits[layer.name][0], reduced) for layer in once(units)
    )


def once(units: Units) -> list[Layer]:
    """Layers by name; one that is called twice has one weight."""
    return list({layer.name: layer for layer in reversed(units.layers)}.values())[::-1]


def check_finite(module: fx.GraphModule, units: Units) -> None:
    """Refuse weights and biases with NaN or infinity.

    Raises:
        NonFiniteError: The layer and the parameter are named.
    """
    for layer in units.layers:
        for node in (layer.weight, layer.bias):
            if node is not None and not bool(torch.isfinite(fetch(module, str(node.target))).all()):
                raise NonFiniteError(
                    layer.name,
                    wanted="finite weights",
                    found=f"NaN or infinity in {node.target}",
                    do="Load the trained weights again, or train with a smaller learning rate.",
                )


def _grid(
    module: fx.GraphModule,
    layer: Layer,
    units: Units,
    scales: dict[str, float],
    scheme: Scheme,
    bits: int,
    reduced: frozenset[str],
) -> WeightQuant:
    weight = fetch(module, str(layer.weight.target)).detach().float()
    estimator = scheme.weight_range
    assert not isinstance(estimator, str)
    axis, group = scheme.weight_axis, scheme.weight_group
    used = grid_bits(layer.name, bits, reduced)

    def find(rows: Tensor, along: int | None = 0) -> Grid:
        return estimator(rows, bits=used, signed=True, symmetric=scheme.weight_symmetric, axis=along)

    found = find(weight, axis) if group is None else by_group(weight, group, find)
    scale = found.scale
    source = units.carried[layer.source].name
    if layer.bias is not None and source in scales:
        bias = fetch(module, str(layer.bias.target)).detach().float()
        scale = room_for_bias(scale, bias, scales[source])
    return _plan(layer.name, bits, axis, group, found, scale)


def room_for_bias(scale: Tensor, bias: Tensor, input_scale: float) -> Tensor:
    """Scales of a weight at which its bias fits 32 bits, also where all weights are (nearly) zero.

    Args:
        scale: ``()``, ``(out,)``, or ``(out, groups)``.
        bias: ``(out,)``.
        input_scale: Of what the layer reads.

    Example:
        >>> room_for_bias(torch.tensor([1.0, 1e-12]), torch.tensor([4.0, 4.0]), 0.5).tolist() == [1.0, 2**-27]
        True
    """
    floor = bias.abs() / (input_scale * MOST_BIAS)
    shapes = {0: floor.max(), 1: floor, 2: floor[:, None]}
    return torch.maximum(scale, shapes[scale.dim()])


def by_group(weight: Tensor, group: int, find: Callable[[Tensor], Grid]) -> Grid:
    """A grid for each group of input channels of each output channel.

    Args:
        weight: ``(out, in, ...)``.
        group: Input channels in a group; the last may have fewer.
        find: Rows to one grid a row.

    Returns:
        Scales and zero points ``(out, groups)``.
    """
    whole = weight.shape[1] // group * group
    found = [
        find(part.reshape(len(weight) * count, -1))
        for part, count in ((weight[:, :whole], whole // group), (weight[:, whole:], 1))
        if part.numel()
    ]
    scale, zero_point = (
        torch.cat([getattr(g, name).reshape(len(weight), -1) for g in found], 1)
        for name in ("scale", "zero_point")
    )
    return Grid(scale=scale, zero_point=zero_point, qmin=found[0].qmin, qmax=found[0].qmax)


def _plan(
    name: str, bits: int, axis: int | None, group: int | None, found: Grid, scale: Tensor
) -> WeightQuant:
    return WeightQuant(
        layer=name,
        bits=bits,
        qmin=found.qmin,
        qmax=found.qmax,
        axis=axis,
        scale=tuple(scale.reshape(-1).tolist()),
        zero_point=tuple(int(z) for z in found.zero_point.reshape(-1).tolist()),
        group=group,
    )


def stored_weight(weight: Tensor, plan: WeightQuant) -> QuantizedWeight:
    """The integers that ``plan`` makes of a float weight."""
    stored = QuantizedWeight(
        plan.layer,
        weight,
        plan.scale,
        plan.zero_point,
        plan.qmin,
        plan.qmax,
        plan.axis,
        plan.bits,
        plan.group,
    )
    if plan.moved:
        moved = unpack(plan.moved, tuple(weight.shape)).to(weight.device)
        stored.integers = (stored.integers + moved).clamp(plan.qmin, plan.qmax).to(torch.int8)
    return stored


def shifted(weight: WeightQuant, shift: tuple[float, ...]) -> WeightQuant:
    """The plan with ``shift`` added to what it adds to the bias."""
    if not shift:
        return weight
    own = weight.bias_shift or (0.0,) * len(shift)
    return replace(weight, bias_shift=tuple(a + b for a, b in zip(own, shift, strict=True)))
