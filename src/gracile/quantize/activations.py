"""Grids of activations, from what calibration batches show."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from gracile.observe import Histogram
from gracile.records import EdgeQuant

from .bits import edge_bits
from .grid import Grid
from .scheme import Scheme
from .units import Units


def edge_grids(
    module: fx.GraphModule,
    units: Units,
    batches: list[tuple[Tensor, ...]],
    scheme: Scheme,
    bits: Mapping[str, tuple[int, int]],
) -> tuple[EdgeQuant, ...]:
    """A grid for every edge that has its own.

    Raises:
        NonFiniteError: Activations hold NaN or infinity; the layer is named.
    """
    names = {layer.node: layer.name for layer in units.layers}
    seen = {}
    outputs = {
        units.carried.get(n) for out in module.graph.nodes if out.op == "output" for n in out.all_input_nodes
    }
    for node in units.owners:
        made_by = units.fused.get(node, node)
        seen[node] = Histogram(names.get(made_by, node.name), _LOGITS if node in outputs else 0)
    watch = _Watch(module, seen)
    with torch.no_grad():
        for batch in batches:
            watch.run(*batch)
    wanted = edge_bits(units, bits, scheme)
    return tuple(
        _edge(node, histogram, bits_of_readers, readers, scheme)
        for node, histogram in seen.items()
        for readers, bits_of_readers in wanted[node].items()
    )


_LOGITS = 1024  # rows kept of what the model gives out


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


def _edge(node: fx.Node, seen: Histogram, bits: int, readers: str, scheme: Scheme) -> EdgeQuant:
    estimator = scheme.activation_range
    assert not isinstance(estimator, str)  # Scheme looks names up
    range_bits = max(bits, 2)  # a first range for training is all that 1 bit has
    found = estimator.of_histogram(seen, bits=range_bits, signed=False, symmetric=scheme.activation_symmetric)
    return edge_quant(node, bits, found, readers)


def edge_quant(node: fx.Node, bits: int, found: Grid, readers: str = "all") -> EdgeQuant:
    """The record of an edge's grid."""
    return EdgeQuant(
        node=node.name,
        bits=bits,
        qmin=found.qmin,
        qmax=found.qmax,
        scale=float(found.scale),
        zero_point=int(found.zero_point),
        readers=readers,
    )
