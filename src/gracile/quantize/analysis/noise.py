"""Signal to quantization noise of every layer: its weights, its own doing, and what has added up.

Source: the ratio as in Lin, Talathi and Annapureddy, "Fixed point quantization of deep convolutional
networks", ICML 2016, arXiv 1511.06393: ``10 log10(sum x^2 / sum (x - Q(x))^2)``. Where we differ:
it is measured, on values that flow, not derived from distributions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from gracile.nn import ActivationQuantizer, QuantizedModel, QuantizedWeight
from gracile.observe import Batch, Calibration
from gracile.records import EdgeNoise, EdgeQuant, QuantNoise

from ..calibration import float32_batches
from ..lower import fetch
from ..units import Units, find_units

MOST_DB = 200.0
_AT_ONCE = 8  # images: every edge of three runs is held in memory
_SECOND = ":layers"  # behind the name of a value that layers read on a grid of their own


def noise(quantized: QuantizedModel, batches: Calibration) -> QuantNoise:
    """Compare the float graph with the quantized one, at every edge and every layer.

    A layer's own noise is found with exact inputs: behind each quantizer the quantized graph goes on with
    the float values. The accumulated noise is that of a free run.

    Args:
        quantized: From :func:`gracile.quantize.ptq`.
        batches: Inputs to look at.

    Raises:
        BadArgument: ``batches`` is empty.

    Example:
        >>> from torch import nn
        >>> from gracile.quantize import ptq
        >>> images = torch.randn(8, 3, 8, 8)
        >>> quantized = ptq(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (images[:1],), [images])
        >>> found = noise(quantized, [images])
        >>> [edge.layer for edge in found.edges], found.output_db > 30
        (['', '0'], True)
    """
    units = find_units(quantized.float_graph)
    watched = _watched(quantized, units)
    images, output = 0, _Sums()
    with torch.no_grad():
        for inputs in _slices(float32_batches(batches, quantized, quantized.input_count, argument="batches")):
            images += len(inputs[0])
            exact = _Values(
                quantized.float_graph, {_node(n) for n in [*watched, *_quantizer_names(quantized)]}
            )
            wanted = exact.run(*inputs)
            free, own = _Values(quantized.network, set(watched)), _Own(quantized.network, watched, exact.seen)
            for one, other in zip(tree_leaves(wanted), tree_leaves(free.run(*inputs)), strict=True):
                output.add(one, other)
            own.run(*inputs)
            for name, sums in watched.items():
                sums.update(exact.seen[_node(name)], own.found[name], free.seen[name])
    rows = tuple(_row(quantized, units, name, sums) for name, sums in watched.items())
    return QuantNoise(images=images, edges=rows, output_db=output.db)


def _slices(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of a few images."""
    for inputs in batches:
        for start in range(0, len(inputs[0]), _AT_ONCE):
            yield tuple(x[start : start + _AT_ONCE] for x in inputs)


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two energies, at most 200 and at least -200.

    Example:
        >>> decibels(1.0, 0.01), decibels(1.0, 0.0)
        (20.0, 200.0)
    """
    if noise == 0 or signal == 0:
        return MOST_DB if noise == 0 else -MOST_DB
    return min(max(10 * math.log10(signal / noise), -MOST_DB), MOST_DB)


@dataclass
class _Sums:
    signal: float = 0.0
    error: float = 0.0

    def add(self, wanted: Tensor, found: Tensor) -> None:
        self.signal += float(wanted.double().square().sum())
        self.error += float((found.double() - wanted.double()).square().sum())

    @property
    def db(self) -> float:
        return decibels(self.signal, self.error)


class _Edge:
    """Sums over batches of one edge."""

    def __init__(self, grid: EdgeQuant | None) -> None:
        self.grid, self.own, self.free = grid, _Sums(), _Sums()
        self.low, self.high, self.count, self.beyond = math.inf, -math.inf, 0, 0

    @property
    def ends(self) -> tuple[float, float] | None:
        """Of the grid, in real values."""
        g = self.grid
        return None if g is None else ((g.qmin - g.zero_point) * g.scale, (g.qmax - g.zero_point) * g.scale)

    def update(self, wanted: Tensor, own: Tensor, free: Tensor) -> None:
        self.own.add(wanted, own)
        self.free.add(wanted, free)
        self.low, self.high = min(self.low, float(wanted.min())), max(self.high, float(wanted.max()))
        self.count += wanted.numel()
        if self.grid is not None and self.ends is not None:
            low, high = self.ends
            half = self.grid.scale / 2
            self.beyond += int(((wanted < low - half) | (wanted > high + half)).sum())


def _watched(quantized: QuantizedModel, units: Units) -> dict[str, _Edge]:
    """Edges with a grid of their own, and layers whose output has none, in graph order."""
    grids = {edge.name: edge for edge in quantized.plan.edges}
    fused = {base.name for activation, base in units.fused.items() if activation.name in grids}
    layers = {layer.node.name for layer in units.layers}
    found = {}
    for node in quantized.float_graph.graph.nodes:
        if node.name in grids or (node.name in layers and node.name not in fused):
            found[node.name] = _Edge(grids.get(node.name))
        if (second := f"{node.name}{_SECOND}") in grids:
            found[second] = _Edge(grids[second])
    return found


def _node(edge: str) -> str:
    """Name of the node that an edge is the value of."""
    return edge.removesuffix(_SECOND)


def _quantizer_names(quantized: QuantizedModel) -> set[str]:
    return {m.name for m in quantized.network.modules() if isinstance(m, ActivationQuantizer)}


class _Values(fx.Interpreter):
    """Runs a graph and keeps the values of nodes, behind their quantizer where there is one."""

    def __init__(self, module: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(module)
        self.wanted = wanted
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name = _name(self.module, n)
        if name in self.wanted:
            self.seen[name] = value
        return value


class _Own(fx.Interpreter):
    """Runs the quantized graph, each unit on the float values."""

    def __init__(self, module: fx.GraphModule, wanted: dict[str, _Edge], exact: dict[str, Tensor]) -> None:
        super().__init__(module)
        self.wanted, self.exact = wanted, exact
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name = _name(self.module, n)
        if name in self.wanted:
            self.found[name] = value
        quantizer = n.op == "call_module" and name != n.name
        return self.exact[_node(name)] if quantizer else value


def _name(module: Any, n: fx.Node) -> str:
    """Of the edge for a quantizer, else of the node."""
    if n.op == "call_module" and isinstance(
        found := module.get_submodule(str(n.target)), ActivationQuantizer
    ):
        return found.name
    return n.name


def _row(quantized: QuantizedModel, units: Units, name: str, sums: _Edge) -> EdgeNoise:
    made_by = {a.name: base.name for a, base in units.fused.items()}.get(name, name)
    layer = next((x for x in units.layers if x.node.name == made_by), None)  # none for a second grid
    stored = {m.name: m for m in quantized.network.modules() if isinstance(m, QuantizedWeight)}
    weight = None if layer is None else stored.get(layer.name)
    ends = sums.ends
    return EdgeNoise(
        edge=name,
        layer="" if layer is None else layer.name,
        weight_bits=None if weight is None else weight.bits,
        activation_bits=None if sums.grid is None else sums.grid.bits,
        weight_db=None
        if weight is None or layer is None
        else _weight_db(fetch(quantized.float_graph, str(layer.weight.target)), weight()),
        own_db=sums.own.db,
        accumulated_db=sums.free.db,
        low=sums.low,
        high=sums.high,
        grid_low=None if ends is None else ends[0],
        grid_high=None if ends is None else ends[1],
        clipped=sums.beyond / max(sums.count, 1),
    )


def _weight_db(wanted: Tensor, found: Tensor) -> float:
    sums = _Sums()
    sums.add(wanted.detach(), found)
    return sums.db
