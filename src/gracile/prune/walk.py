"""Run a captured graph operation by operation over many batches, and let go of what is no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from gracile.graph import Captured
from gracile.observe import Batch


def _alive(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Nodes that the output needs."""
    found: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.op == "output" or any(user in found for user in node.users):
            found.add(node)
    return found


class Walk:
    """Values of a graph's operations, one a batch, worked out when asked for.

    Args:
        captured: A graph captured with batches of the size of ``batches``.
        read: Gives the present value of a parameter or buffer by name.
        batches: Inputs.
        before: Called with each operation just before it runs for the first batch.
        fit: Brings constants of the code into the type and place of the rest.

    Example:
        >>> from torch import nn
        >>> from gracile.graph import capture
        >>> net = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
        >>> batch = torch.ones(3, 2)
        >>> walk = Walk(capture(net, (batch,)), net.state_dict().__getitem__, [(batch,), (2 * batch,)])
        >>> out = walk(walk.nodes[-1].all_input_nodes[0])
        >>> torch.equal(out[1], net(2 * batch))
        True
    """

    def __init__(
        self,
        captured: Captured,
        read: Callable[[str], Tensor],
        batches: Sequence[Batch],
        before: Callable[[fx.Node], None] = lambda node: None,
        fit: Callable[[Tensor], Tensor] = lambda constant: constant,
    ) -> None:
        self.captured, self.read, self.before, self.fit = captured, read, before, fit
        self.nodes: list[fx.Node] = list(captured.graph.nodes)
        self._count = len(batches)
        self._values: dict[fx.Node, list[Any]] = {}
        alive = _alive(self.nodes)
        self._waiting = {n: sum(user in alive for user in n.users) for n in self.nodes}
        self.done: set[fx.Node] = set()
        fed = 0
        for node in self.nodes:
            is_input = node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)
            if is_input and captured.param_of(node) is None and captured.constant_of(node) is None:
                self._values[node] = [b[fed] for b in batches]
                fed += 1

    def __call__(self, node: fx.Node) -> list[Any]:
        """Values of ``node``, one a batch; an operation that waits for nothing more has been let go."""
        if node not in self._values and node.op != "placeholder":
            for needed in self._needed(node):
                self._run(needed)
        return [self._value(node, i) for i in range(self._count)]

    def _needed(self, node: fx.Node) -> list[fx.Node]:
        """Operations to run for ``node``, in graph order."""
        found, stack = set(), [node]
        while stack:
            at = stack.pop()
            if at.op == "call_function" and at not in self._values and at not in found:
                found.add(at)
                stack.extend(at.all_input_nodes)
        return [n for n in self.nodes if n in found] if len(found) > 1 else list(found)

    def _run(self, node: fx.Node) -> None:
        if node in self._values:  # run meanwhile, on behalf of another
            return
        self.before(node)
        values = []
        with torch.no_grad():
            for i in range(self._count):
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), partial(self._value, batch=i))
                values.append(node.target(*args, **kwargs))  # type: ignore[operator]
        self._values[node] = values
        self.done.add(node)
        for source in node.all_input_nodes:
            self._waiting[source] -= 1
            if self._waiting[source] == 0 and source.op == "call_function":
                del self._values[source]

    def _value(self, node: fx.Node, batch: int) -> Any:
        if node in self._values:
            return self._values[node][batch]
        name, constant = self.captured.param_of(node), self.captured.constant_of(node)
        if name is not None:
            return self.read(name).detach()
        return None if constant is None else self.fit(constant)
