"""Which values of a graph carry integers: the units that a runtime fuses, and the edges between them.

A unit is a convolution, linear layer, sum, concatenation or average with the saturating activation behind it
(ReLU, ReLU6, clip): one integer kernel, quantized once, after the activation, whose clip is that of the grid.
Operations that only move values (max pooling, slicing, padding with zeros, reshaping) keep the grid of what
they move. Everything else runs in float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import fx

from gracile.nn import SpatialMean
from gracile.records import Skipped

from .lower import argument, module_of, op_name, value_of

LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
MATH = frozenset({"add", "cat", "avg_pool2d", "mul", "spatial_mean"})
MOVES = frozenset(
    {
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "flatten",
        "view",
        "reshape",
        "_unsafe_view",
        "permute",
        "transpose",
        "squeeze",
        "unsqueeze",
        "slice",
        "select",
        "pad",
        "constant_pad_nd",
        "expand",
        "split",
        "split_with_sizes",
        "chunk",
        "getitem",
        "channel_shuffle",
        "pixel_shuffle",
        "pixel_unshuffle",
        "upsample_nearest2d",
        "narrow",
        "index_select",
        "t",
        "unflatten",
    }
)
ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
_NO_WEIGHTS = "has no integer kernel, so it runs in float"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or linear layer whose weights become integers."""

    name: str
    node: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    source: fx.Node
    """The node that made its input."""

    @property
    def is_module(self) -> bool:
        """Whether its parameters are those of a module that bears its name."""
        parts = {"weight": self.weight, "bias": self.bias}
        return all(n is None or str(n.target) == f"{self.name}.{kind}" for kind, n in parts.items())


@dataclass
class Units:
    """What is quantized in one graph.

    ``carried`` maps every node whose value lies on a grid to the node that owns the grid (itself, where a
    quantizer acts). ``fused`` maps an activation to the operation that it is fused to.
    """

    layers: list[Layer] = field(default_factory=list)
    carried: dict[fx.Node, fx.Node] = field(default_factory=dict)
    fused: dict[fx.Node, fx.Node] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def owners(self) -> list[fx.Node]:
        """Nodes behind which a quantizer with its own grid acts, in graph order."""
        return [node for node, owner in self.carried.items() if node is owner]

    @property
    def read_by_others(self) -> set[fx.Node]:
        """Owners whose values something else than a layer reads as they are, behind moves too."""
        layers = {layer.node for layer in self.layers}
        return {
            owner
            for node, owner in self.carried.items()
            if any(user not in layers and self.carried.get(user) is not owner for user in node.users)
        }


def find_units(module: fx.GraphModule) -> Units:
    """Divide a lowered graph into units."""
    units = Units()
    graph = module.graph
    kinds = {node: _kind(module, node) for node in graph.nodes}
    for node in graph.nodes:
        base = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if base is None or kinds[base] not in ("layer", "math"):
            continue
        if _saturates_at_zero(node) and len(base.users) == 1:
            units.fused[node] = base
    needed = _needed(graph, kinds, units)
    for node in graph.nodes:
        if node in needed:
            units.carried[node] = node
        elif kinds[node] == "move" and (source := _moved(node)) in units.carried:
            units.carried[node] = units.carried[source]
    _collect_layers(module, kinds, units)
    return units


def _kind(module: fx.GraphModule, node: fx.Node) -> str:
    """``layer``, ``math``, ``move``, ``constant`` or ``float``."""
    name = op_name(node)
    if node.op == "get_attr":
        return "constant"
    if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), SpatialMean):
        return "math"
    if name in LAYERS:
        return "layer" if _has_stored_weight(node) else "float"
    if name in MATH:
        return "math" if _only_activations(node) else "float"
    if name in MOVES:
        return "move" if _keeps_grid(node) else "float"
    return "float"


def _has_stored_weight(node: fx.Node) -> bool:
    weight, bias = node.args[1], argument(node, "bias")
    stored = isinstance(weight, fx.Node) and weight.op == "get_attr"
    stored = stored and (bias is None or (isinstance(bias, fx.Node) and bias.op == "get_attr"))
    if op_name(node) != "linear":
        return stored and not isinstance(argument(node, "padding", 0), str)
    value = value_of(node)
    return stored and value is not None and value.dim() == 2  # ONNX Gemm


def _only_activations(node: fx.Node) -> bool:
    """All operands are tensors that the graph computes, on the same rank; no ``alpha``, no ``dtype``."""
    operands = list(node.all_input_nodes)
    values = [value_of(n) for n in operands]
    if any(v is None or not v.is_floating_point() for v in values):
        return False
    if any(n.op == "get_attr" for n in operands):
        return False
    if op_name(node) in ("add", "mul"):
        two = len(operands) == 2 and argument(node, "alpha", 1) == 1
        return two and values[0].dim() == values[1].dim()  # type: ignore[union-attr]
    if op_name(node) == "avg_pool2d":
        return argument(node, "divisor_override") is None and not argument(node, "ceil_mode", False)
    return True


def _keeps_grid(node: fx.Node) -> bool:
    name = op_name(node)
    source = _moved(node)
    if source is None:
        return False
    if name == "pad":
        return argument(node, "mode", "constant") == "constant" and not argument(node, "value", None)
    if name == "constant_pad_nd":
        return not argument(node, "value", 0)
    if name == "getitem":
        return op_name(source) in ("split", "split_with_sizes", "chunk")
    if name in ("split", "split_with_sizes", "chunk"):
        moved = value_of(source)
        return moved is not None and moved.is_floating_point()
    value = value_of(node)
    return value is not None and value.is_floating_point()


def _moved(node: fx.Node) -> fx.Node | None:
    source = node.args[0] if node.args else None
    return source if isinstance(source, fx.Node) else None


def _saturates_at_zero(node: fx.Node) -> bool:
    """A clip from exactly zero upwards: a grid with zero point 0 does the same when it rounds."""
    name = op_name(node)
    low: object = 0.0
    if name == "hardtanh":
        low = argument(node, "min_val", -1.0)
    elif name in ("clamp", "clamp_min"):
        low = argument(node, "min")
    return name in ACTIVATIONS and isinstance(low, int | float) and low == 0


def upper_bound(activation: fx.Node) -> float:
    """Where an activation stops at the top, infinity where it does not.

    Example:
        >>> import torch
        >>> node = fx.Graph().call_function(torch.ops.aten.hardtanh.default, (None, 0.0, 6.0))
        >>> upper_bound(node)
        6.0
    """
    name = op_name(activation)
    if name == "relu6":
        return 6.0
    bound = argument(activation, "max_val" if name == "hardtanh" else "max")
    return math.inf if bound is None else float(bound)


def _needed(graph: fx.Graph, kinds: dict[fx.Node, str], units: Units) -> set[fx.Node]:
    """Owners of grids: what integer operations read, and what convolutions give."""
    needed: set[fx.Node] = set()
    fused_to = {base: activation for activation, base in units.fused.items()}

    def owner(node: fx.Node) -> fx.Node:
        while kinds[node] == "move":
            source = _moved(node)
            assert source is not None
            node = source
        return node

    for node in reversed(graph.nodes):
        end = fused_to.get(node, node)
        if kinds[node] == "layer":
            if op_name(node) != "linear":
                needed.add(end)
            needed.add(owner(node.args[0]))
        elif kinds[node] == "math" and end in needed:
            needed.update(owner(n) for n in node.all_input_nodes)
    return needed


def _collect_layers(module: fx.GraphModule, kinds: dict[fx.Node, str], units: Units) -> None:
    for node in module.graph.nodes:
        if kinds[node] == "layer":
            weight, bias, source = node.args[1], argument(node, "bias"), node.args[0]
            assert isinstance(weight, fx.Node)
            assert isinstance(source, fx.Node)
            name = str(weight.target).removesuffix(".weight")
            units.layers.append(Layer(name=name, node=node, weight=weight, bias=bias, source=source))
        elif kinds[node] == "float" and node.op == "call_function" and node not in units.fused:
            value = value_of(node)
            if value is not None and value.is_floating_point():
                where = module_of(node) or node.name
                units.skipped.append(Skipped(where, f"{op_name(node)} {_NO_WEIGHTS}"))
