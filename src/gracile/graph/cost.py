"""Cost by formula: multiply-adds, parameters and activation bytes of a captured model.

A convolution with weights (O, I/g, k...) and output positions P costs P * O * I/g * prod(k) multiply-adds;
a transposed one the same over its input positions; a linear layer rows * O * I; a matrix product
batch * m * k * n; attention both of its products. Nothing else is counted: these are estimates, never
measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor, fx, nn

from gracile.records import Cost, LayerCost

from .capture import Captured, capture
from .rules import LITERAL, bound, packet

Sizes = Callable[[str], Mapping[int, int]]
BYTES = 4  # float32 activations
VIEWS = LITERAL | {"getitem", "alias", "detach", "dropout", "contiguous", "lift_fresh_copy", "to"}


def cost(model: nn.Module, inputs: tuple[Tensor, ...]) -> Cost:
    """Cost of ``model`` for ``inputs`` (give one image to get the cost of one image).

    Example:
        >>> import torch
        >>> cost(nn.Conv2d(3, 8, 3, bias=False), (torch.zeros(1, 3, 6, 6),)).macs == 16 * 8 * 3 * 9
        True
    """
    return cost_of(capture(model, inputs), lambda node: {}, {})


def cost_of(captured: Captured, sizes: Sizes, param_sizes: Mapping[tuple[str, int], int]) -> Cost:
    """Cost with some axes shrunk.

    Args:
        captured: The model.
        sizes: Node name to {axis: size} of the axes that shrink.
        param_sizes: (parameter, axis) to size of the axes that shrink.
    """
    params = _param_counts(captured, param_sizes)
    layers, macs, held = [], 0, 0
    held_by = _held_by(captured)
    charged: set[str] = set()
    shown: set[int] = set()  # tensors of layers before; one that shares its weight with these counts none
    for node in captured.graph.nodes:
        if node.op != "call_function":
            continue
        done = _macs(node, sizes)
        size = _bytes(node, sizes)
        held += 0 if packet(node) in VIEWS else size
        if done is None:
            continue
        macs += done
        owner = captured.module_of(node)
        own = held_by.get(owner, set()) - shown if _weight_of(captured, node) not in shown else set()
        layers.append(
            LayerCost(
                name=owner if owner and owner not in charged else f"{owner}:{node.name}".lstrip(":"),
                kind=packet(node),
                weight_shape=_weight_shape(node, sizes),
                output_shape=_shape(node, sizes),
                macs=done,
                params=sum(params.get(tensor, 0) for tensor in own),
                activation_bytes=size,
            )
        )
        charged.add(owner)
        shown |= own
    return Cost(
        macs=macs,
        params=sum(params.values()),
        activation_bytes=held,
        peak_activation_bytes=_peak(captured, sizes),
        layers=tuple(layers),
    )


def _shape(node: fx.Node, sizes: Sizes) -> tuple[int, ...]:
    val = node.meta.get("val")
    if not isinstance(val, Tensor):
        return ()
    small = sizes(node.name)
    return tuple(small.get(axis, int(s)) for axis, s in enumerate(val.shape))


def _bytes(node: fx.Node, sizes: Sizes) -> int:
    return prod(_shape(node, sizes)) * BYTES if isinstance(node.meta.get("val"), Tensor) else 0


def _weight_shape(node: fx.Node, sizes: Sizes) -> tuple[int, ...]:
    weight = bound(node).get("weight")
    return _shape(weight, sizes) if isinstance(weight, fx.Node) else ()


def _weight_of(captured: Captured, node: fx.Node) -> int | None:
    """Identity of a layer's weight, ``None`` where it is computed."""
    weight = bound(node).get("weight")
    name = captured.param_of(weight) if isinstance(weight, fx.Node) else None
    return None if name is None else id(captured.program.state_dict.get(name))


def _macs(node: fx.Node, sizes: Sizes) -> int | None:
    """Multiply-adds of a node, or None for one that is not counted."""
    name = packet(node)
    if name.startswith("conv") or name == "convolution":
        args: dict[str, Any] = bound(node)
        weight = _shape(args["weight"], sizes)
        if "transpose" in name or args.get("transposed"):
            x = _shape(args["input"], sizes)
            return prod(x) // max(weight[0], 1) * prod(weight)
        return prod(_shape(node, sizes)) * prod(weight[1:])
    if name == "linear":
        return prod(_shape(node, sizes)) * _shape(bound(node)["weight"], sizes)[1]
    if name in ("matmul", "mm", "bmm"):
        return prod(_shape(node, sizes)) * _shape(node.all_input_nodes[0], sizes)[-1]
    if name == "einsum":
        return _einsum_macs(node, sizes)
    if name == "scaled_dot_product_attention":
        q, k, v = (_shape(bound(node)[n], sizes) for n in ("query", "key", "value"))
        return prod(q) * k[-2] + prod(q[:-1]) * k[-2] * v[-1]
    return None


def _einsum_macs(node: fx.Node, sizes: Sizes) -> int:
    args = bound(node)
    inputs = str(args["equation"]).replace(" ", "").split("->")[0].split(",")
    letters: dict[str, int] = {}
    for tensor, names in zip(args["tensors"], inputs, strict=True):
        letters.update(zip(names, _shape(tensor, sizes), strict=False))
    return prod(letters.values())


def _param_counts(captured: Captured, sizes: Mapping[tuple[str, int], int]) -> dict[int, int]:
    """Elements of every trainable parameter, by identity: one with several names counts once."""
    names = set(captured.program.graph_signature.parameters)
    counts: dict[int, int] = {}
    running: set[int] = set()
    for node in captured.graph.nodes:
        name = captured.param_of(node) if node.op == "placeholder" else None
        if name not in names or not isinstance(node.meta.get("val"), Tensor):
            continue
        tensor = id(captured.program.state_dict[str(name)])
        if tensor in running:
            continue
        shape = node.meta["val"].shape
        counts[tensor] = prod(sizes.get((str(name), a), int(s)) for a, s in enumerate(shape))
        if node.users:  # of several names the one that runs is the one that shrinks
            running.add(tensor)
    return counts


def _held_by(captured: Captured) -> dict[str, set[int]]:
    """Identities of the tensors that each module holds itself."""
    found: dict[str, set[int]] = {}
    for name, tensor in captured.program.state_dict.items():
        found.setdefault(name.rpartition(".")[0], set()).add(id(tensor))
    return found


def _peak(captured: Captured, sizes: Sizes) -> int:
    """Most activation bytes alive at once when the nodes run in graph order (views share their source)."""
    owner: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, int] = {}
    order = list(captured.graph.nodes)
    for i, node in enumerate(order):
        for source in node.all_input_nodes:
            last[owner.get(source, source)] = i
        is_view = node.op == "call_function" and packet(node) in VIEWS and node.all_input_nodes
        owner[node] = owner[node.all_input_nodes[0]] if is_view else node
    alive, now, peak = {}, 0, 0
    for i, node in enumerate(order):
        is_param = node.op == "placeholder" and (
            captured.param_of(node) or captured.constant_of(node) is not None
        )
        if node.op in ("call_function", "placeholder") and owner[node] is node and not is_param:
            alive[node] = _bytes(node, sizes)
            now += alive[node]
            peak = max(peak, now)
        for done in [n for n in alive if last.get(n, i) <= i]:
            now -= alive.pop(done)
    return peak
