"""Which values of a graph share memory, and where it is written: what views and in-place calls do."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import fx

from .rules import packet

_MAY_PASS = {"getitem", "dropout", "feature_dropout", "alpha_dropout", "type_as"}
"""Give their input itself at times, which their schema does not say."""


class Memory:
    """The memory behind every node of a graph as it stands.

    ``root`` maps each node to the one that made its memory. ``place`` counts nodes in the order they run.

    Example:
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         y = x + 1
        ...         y[:, 0].zero_()
        ...         return y
        >>> graph = torch.export.export(Net(), (torch.ones(2, 3),)).module().graph
        >>> memory = Memory(graph)
        >>> {n.name: memory.root[n].name for n in graph.nodes if n.op == "call_function"}
        {'add': 'add', 'select': 'add', 'zero_': 'add'}
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.root: dict[fx.Node, fx.Node] = {}
        self.place: dict[fx.Node, int] = {}
        self.sharing: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        self.writes: dict[fx.Node, list[int]] = defaultdict(list)
        for place, node in enumerate(graph.nodes):
            source = _alias_of(node)
            self.root[node] = node if source is None else self.root[source]
            self.place[node] = place
            self.sharing[self.root[node]].append(node)
            for root in self.written_by(node):
                self.writes[root].append(place)

    def written_by(self, node: fx.Node) -> set[fx.Node]:
        """Roots of the memory that a node writes into."""
        return {self.root[n] for n in _touched(node, writes=True)}

    def written_between(self, first: fx.Node, last: fx.Node) -> bool:
        """Whether the memory of ``first`` is written after it and before ``last``."""
        start, end = self.place[first], self.place[last]
        return any(start < place < end for place in self.writes[self.root[first]])

    def may_stand_for(self, source: fx.Node, node: fx.Node) -> bool:
        """Whether what reads ``node`` may read ``source``, which has the same numbers when ``node`` runs.

        Two memories become one: then nothing may be written later, unless nothing else reads the source's.
        """
        own, other, now = self.root[node], self.root[source], self.place[node]
        if own is other:
            return True
        if own is not node and self._read_later(own, now):
            return False
        if all(place <= now for place in (*self.writes[own], *self.writes[other])):
            return True
        return other.op == "call_function" and not self._read_later(other, now)

    def _read_later(self, root: fx.Node, now: int) -> bool:
        """Whether something that shares memory before ``now`` is read after it."""
        older = [n for n in self.sharing[root] if self.place[n] < now]
        return any(self.place[user] > now for n in older for user in n.users)


def _alias_of(node: fx.Node) -> fx.Node | None:
    """The input whose memory a node's output lies in, ``None`` where it has its own."""
    if node.op != "call_function":
        return None
    if packet(node) in _MAY_PASS:
        return node.all_input_nodes[0] if node.all_input_nodes else None
    returns = node.target._schema.returns if isinstance(node.target, torch._ops.OpOverload) else []
    return next(iter(_touched(node)), None) if any(r.alias_info is not None for r in returns) else None


def _touched(node: fx.Node, *, writes: bool = False) -> list[fx.Node]:
    """Inputs that a call gives on or, for ``writes``, changes."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    found: list[fx.Node] = []
    schema: Any = node.target._schema
    for i, argument in enumerate(schema.arguments):
        alias = argument.alias_info
        if alias is not None and (alias.is_write or not writes):
            given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            listed = given if isinstance(given, list | tuple) else [given]
            found += [n for n in listed if isinstance(n, fx.Node)]
    return found
