"""Operations that change nothing: sums with zeros, and a ReLU of a ReLU.

They are left behind where a residual branch was removed: ``relu(x + 0)`` with ``x`` from a ReLU is ``x``.
"""

from __future__ import annotations

from torch import Tensor, fx

from .memory import Memory
from .rules import bound, packet

_PASS_ON = {
    "mul", "view", "reshape", "permute", "transpose", "expand", "clone", "contiguous", "dropout", "relu",
    "alias", "detach", "flatten", "unsqueeze", "squeeze", "neg",
}  # fmt: skip
_MAKE = {"new_zeros", "zeros", "zeros_like"}


def drop_dead(graph: fx.Graph) -> int:
    """Take out sums with zeros and repeated ReLUs, in place.

    A tensor of zeros counts as such until something else is written into it.

    Returns:
        How many operations went.

    Example:
        >>> import torch
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         x = x.relu()
        ...         return (x + x.new_zeros(1, 1)).relu()
        >>> graph = torch.export.export(Net(), (torch.ones(2, 3),)).module().graph
        >>> drop_dead(graph)
        2
        >>> [n.name for n in graph.nodes if n.op == "call_function"]
        ['relu']
    """
    zeros: set[fx.Node] = set()
    filled: set[fx.Node] = set()  # memory that other numbers were written into
    memory = Memory(graph)
    gone = 0
    for node in [n for n in graph.nodes if n.op == "call_function"]:
        standing = {z for z in zeros if memory.root[z] not in filled}
        if _is_zero(node, standing):
            zeros.add(node)
            continue
        source = _equal(node, standing, memory)
        if source is None or not memory.may_stand_for(source, node):
            filled |= memory.written_by(node)
            continue
        node.replace_all_uses_with(source)
        graph.erase_node(node)
        memory = Memory(graph)
        gone += 1
    if gone:
        graph.eliminate_dead_code()
    return gone


def _is_zero(node: fx.Node, zeros: set[fx.Node]) -> bool:
    if packet(node) in _MAKE:
        return True
    sources = node.all_input_nodes
    if packet(node) not in _PASS_ON or not sources:
        return False
    return any(s in zeros for s in sources) if packet(node) == "mul" else sources[0] in zeros


def _equal(node: fx.Node, zeros: set[fx.Node], memory: Memory) -> fx.Node | None:
    """What goes into an operation that changes nothing."""
    if packet(node) == "add":
        return _other(node, zeros)
    if packet(node) != "relu":
        return None
    source = node.all_input_nodes[0]
    return source if packet(source) == "relu" and not memory.written_between(source, node) else None


def _other(node: fx.Node, zeros: set[fx.Node]) -> fx.Node | None:
    """The summand that a sum with zeros equals, shape and type included."""
    args = bound(node)
    one, two = args["self"], args["other"]
    scaled = args.get("alpha", 1) != 1  # ``one + alpha * two``
    for zero, other in ((one, None if scaled else two), (two, one)):
        if isinstance(zero, fx.Node) and zero in zeros and isinstance(other, fx.Node):
            was, now = node.meta.get("val"), other.meta.get("val")
            if isinstance(was, Tensor) and isinstance(now, Tensor):
                return other if was.shape == now.shape and was.dtype == now.dtype else None
    return None
