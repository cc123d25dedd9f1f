"""Layers that share a parameter with something else: they stay tied, in float.

A layer that trains quantized owns its parameters and those of the norm behind it. Where an embedding or
another layer reads one of them too, either the two would part while they train, or the rounded weight would
be read where the float one was trained.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from gracile.records import Skipped

from ..lower import module_of
from ..units import Units


def shared_parameters(graph: fx.GraphModule, units: Units, normalised: Collection[str]) -> dict[str, Skipped]:
    """Layers with a parameter that something else reads, by name, as what is left in float.

    Calls of one layer, with the same parameters, do not count as something else.

    Args:
        graph: Lowered, norms not folded.
        units: Of the graph with folded norms.
        normalised: Names of the layers with a norm of their own behind them.

    Example:
        >>> import torch
        >>> from gracile.quantize.lower import lower
        >>> from gracile.quantize.units import find_units
        >>> net = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5))
        >>> net[1].weight = net[0].weight
        >>> graph = lower(net, (torch.tensor([1]),))
        >>> shared_parameters(graph, find_units(graph), ())["1"].why
        'shares 1.weight with 0, so it runs in float'
    """
    nodes = {node.name: node for node in graph.graph.nodes}
    held: dict[fx.Node, tuple[str, ...]] = {}
    owner: dict[fx.Node, fx.Node] = {}
    for layer in units.layers:
        node = nodes[layer.node.name]
        parts = [node, *(node.users if layer.name in normalised else ())]
        own = tuple(str(n.target) for part in parts for n in part.all_input_nodes if n.op == "get_attr")
        held |= dict.fromkeys(parts, own)
        owner |= dict.fromkeys(parts, node)
    readers: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            readers.setdefault(str(node.target), []).extend(node.users)
    found: dict[str, Skipped] = {}
    for layer in units.layers:
        node = nodes[layer.node.name]
        for name in held[node]:
            other = next((reader for reader in readers[name] if held.get(reader) != held[node]), None)
            if other is not None:
                why = f"shares {name} with {_place(owner.get(other, other))}, so it runs in float"
                found.setdefault(layer.name, Skipped(_place(node), why))
    return found


def _place(node: fx.Node) -> str:
    return module_of(node) or node.name
