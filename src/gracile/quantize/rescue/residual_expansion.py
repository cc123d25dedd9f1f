"""Residual expansion: a layer as a sum of layers of few bits, each holding what the ones before it lost.

Source: Yvinec, Dapogny, Cord and Bailly, "REx: data-free residual quantization error expansion", NeurIPS
2023, arXiv 2203.14645, section 3: ``R_1 = Q(W)``, ``R_k = Q(W - R_1 - ... - R_(k-1))``, and the layer is the
sum of the layers with ``R_1 .. R_K``; the error falls by a factor of about ``2^bits`` with each term. The
sparse form computes terms behind the first only for the share of output channels where most is left, by the
norm of the rest.

Where we differ: the terms are layers of the graph, so each has its own integers, grid of outputs and kernel,
and is added as a residual branch is; the last term is left in float here and rounded by the scheme's own
rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument
from gracile.records import Expansion, Preparation, Skipped, WeightQuant

from ..graph_fold import set_parameter_
from ..grid import Grid
from ..lower import argument, fetch, op_name, value_of
from ..pairs import NO_MODULE, weight_of
from ..units import Layer, find_units
from .work import Work

_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Expand:
    """Turn layers with fewer than 8 bits into sums.

    Args:
        terms: Layers in a sum, 2 or more.
        share: Of output channels that terms behind the first compute, above 0, at most 1.
    """

    terms: int = 2
    share: float = 1.0
    exact = True

    def __post_init__(self) -> None:
        if self.terms < 2:
            raise BadArgument("terms", wanted="2 or more", found=f"{self.terms=}")
        if not 0 < self.share <= 1:
            raise BadArgument("share", wanted="above 0, at most 1", found=f"{self.share=}")

    def apply(self, work: Work) -> None:
        """Expand layers of ``work`` and record how."""
        names = [layer.name for layer in work.units().layers]
        for layer in work.units().layers:
            bits = work.bits[layer.name][0]
            if why := _obstacle(layer, bits, names):
                work.skipped.append(Skipped(layer.name, f"not expanded: {why}"))
                continue
            record = self._record(work, layer, bits)
            known = work.known.get(layer.node.name)
            total = expand_(work.graph, record)
            work.prepared = replace(work.prepared, expanded=(*work.prepared.expanded, record))
            if known is not None:  # of the sum, and of its first term, which is nearly all of it
                work.known[total.name] = known

    def _record(self, work: Work, layer: Layer, bits: int) -> Expansion:
        left = weight_of(work.graph, layer).float()
        axis = work.weight_axis
        scales, rows, qmax = [], [], 0
        for _ in range(self.terms - 1):
            found = work.weight_range(left, bits=bits, signed=True, symmetric=True, axis=axis)
            scales.append(tuple(found.scale.reshape(-1).tolist()))
            qmax = found.qmax
            left = left - on_grid(left, scales[-1], qmax)
            norm = left.abs().flatten(1).sum(1)
            grouped = op_name(layer.node) != "linear" and int(argument(layer.node, "groups", 1)) > 1
            count = len(left) if grouped else math.ceil(self.share * len(left))
            rows.append(tuple(sorted(norm.argsort(descending=True, stable=True)[:count].tolist())))
            left = left[list(rows[-1])]
        return Expansion(layer=layer.name, qmax=qmax, scales=tuple(scales), rows=tuple(rows))


def _obstacle(layer: Layer, bits: int, names: list[str]) -> str:
    if bits >= 8:
        return f"it has {bits} bits"
    if names.count(layer.name) > 1:
        return "it runs more than once"
    return "" if layer.is_module else NO_MODULE


def on_grid(weight: Tensor, scale: tuple[float, ...], qmax: int) -> Tensor:
    """Weights rounded to the nearest of a symmetric grid, one scale or one per output channel."""
    entries = torch.tensor(scale, dtype=torch.float32, device=weight.device)
    axis = 0 if len(scale) > 1 else None
    entries = entries if axis == 0 else entries.reshape(())
    own = Grid(scale=entries, zero_point=torch.zeros_like(entries), qmin=-qmax, qmax=qmax)
    return own.round(weight, axis)


def expand_(graph: fx.GraphModule, record: Expansion) -> fx.Node:
    """Carry out an expansion, in place; gives the node of the sum."""
    layer = next(found for found in find_units(graph).layers if found.name == record.layer)
    node = layer.node
    left = weight_of(graph, layer).float()
    total, outputs = node, len(left)
    users = list(node.users)
    index = list(range(outputs))
    for k, (scale, rows) in enumerate(zip(record.scales, record.rows, strict=True)):
        term = left.clone()
        term[list(rows)] = on_grid(left, scale, record.qmax)[list(rows)]
        set_parameter_(graph, _name(layer, k), term)
        left = (left - term)[list(rows)]
        index = [index[row] for row in rows]
        graph.get_submodule(layer.name).add_module(f"term{k + 1}", nn.Module())
        set_parameter_(graph, _name(layer, k + 1), left)
        total = _add_term(graph, layer, k + 1, index, outputs, total)
    for user in users:
        user.replace_input_with(node, total)
    return total


def _name(layer: Layer, k: int) -> str:
    return str(layer.weight.target) if k == 0 else f"{layer.name}.term{k}.weight"


def _add_term(
    graph: fx.GraphModule, layer: Layer, k: int, index: list[int], outputs: int, total: fx.Node
) -> fx.Node:
    """Put the layer of one term behind ``total`` and add it."""
    node = layer.node
    plain = {key: v for key, v in node.meta.items() if key != "val"}
    rest = node.args[3:]
    with graph.graph.inserting_after(total):
        weight = graph.graph.get_attr(_name(layer, k))
    with graph.graph.inserting_after(weight):
        args = (node.args[0], weight, None, *rest)
        term = graph.graph.create_node("call_function", node.target, args, dict(node.kwargs))
    value = value_of(node)
    assert value is not None
    weight.meta["val"] = fetch(graph, _name(layer, k))
    term.meta = {**plain, "val": value[:, : len(index)]}
    wide = term if len(index) == outputs else _scatter(graph, layer, k, index, outputs, term, value)
    with graph.graph.inserting_after(wide):
        added = graph.graph.call_function(_aten.add.Tensor, (total, wide))
    added.meta = {**plain, "val": value}
    return added


def _scatter(
    graph: fx.GraphModule, layer: Layer, k: int, index: list[int], outputs: int, term: fx.Node, value: Tensor
) -> fx.Node:
    """Rows to their places among all output channels, zeros elsewhere: a pad and a choice, which keep the
    grid.
    """
    place = [index.index(row) if row in index else len(index) for row in range(outputs)]
    owner: nn.Module = graph.get_submodule(f"{layer.name}.term{k}")
    where = weight_of(graph, layer).device
    owner.register_buffer("place", torch.tensor(place, device=where), persistent=True)
    pads = [0, 0] * (value.dim() - 2) + [0, 1]
    with graph.graph.inserting_after(term):
        padded = graph.graph.call_function(_aten.constant_pad_nd.default, (term, pads, 0.0))
    with graph.graph.inserting_after(padded):
        order = graph.graph.get_attr(f"{layer.name}.term{k}.place")
    with graph.graph.inserting_after(order):
        picked = graph.graph.call_function(_aten.index_select.default, (padded, 1, order))
    padded.meta["val"] = value[:, : len(index) + 1]
    order.meta["val"] = torch.tensor(place)
    picked.meta["val"] = value
    return picked


def kept_grids(weights: tuple[WeightQuant, ...], done: Preparation) -> tuple[WeightQuant, ...]:
    """Grids of the terms that already lie on one, and of no other: rounding must leave them as they are."""
    fixed = {
        record.layer if k == 0 else f"{record.layer}.term{k}": (scale, record.qmax)
        for record in done.expanded
        for k, scale in enumerate(record.scales)
    }
    return tuple(_fixed(w, *fixed[w.layer]) if w.layer in fixed else w for w in weights)


def _fixed(weight: WeightQuant, scale: tuple[float, ...], qmax: int) -> WeightQuant:
    axis = 0 if len(scale) > 1 else None
    zeros = (0,) * len(scale)
    return replace(weight, scale=scale, zero_point=zeros, qmin=-qmax, qmax=qmax, axis=axis, group=None)
