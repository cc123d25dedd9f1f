"""The captured graph as quantization works on it: functional, any batch size, nothing idle in it."""

from __future__ import annotations

import copy
import sys
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from gracile.graph import capture_free_batch, drop_dead
from gracile.nn import SpatialMean
from gracile.observe import device_of

from .calibration import settled

_IDLE = {
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "contiguous",
    "detach",
    "alias",
    "clone",
    "lift_fresh_copy",
}
_NEED_LAYOUT = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default}


def lower(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """Capture a copy of ``model`` in evaluation mode as a graph module with its own parameters, in float32.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was.
        inputs: Example inputs whose first axis is the batch, on any device.

    Raises:
        CaptureError: ``torch.export`` refuses the model, or its code holds the batch size as a number.

    Example:
        >>> graph = lower(nn.Sequential(nn.Linear(4, 2), nn.Dropout()), (torch.zeros(1, 4),))
        >>> [op_name(n) for n in graph.graph.nodes if n.op == "call_function"]
        ['linear']
        >>> graph(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """
    where = device_of(model)
    module = capture_free_batch(_in_float32(model), tuple(settled(x, where) for x in inputs))
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    _remove_idle(module)
    drop_dead(module.graph)
    _name_spatial_means(module)
    _flatten_linears(module)
    module.graph.eliminate_dead_code()
    _rename_methods(module)
    module.recompile()
    return module


def op_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; the target's own name for other calls; "" for the rest."""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name.split("::")[1])
    return str(getattr(node.target, "__name__", ""))


def module_of(node: fx.Node) -> str:
    """Dotted name of the innermost module that ran ``node``."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def value_of(node: fx.Node) -> Tensor | None:
    """The (fake) tensor that ``node`` gave when it was captured, ``None`` for anything else."""
    value = node.meta.get("val")
    return value if isinstance(value, Tensor) else None


def fetch(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer with a dotted name."""
    owner, _, last = name.rpartition(".")
    value = getattr(module.get_submodule(owner), last)
    assert isinstance(value, Tensor)
    return value


def numbers(output: Any) -> tuple[Tensor, ...]:
    """The tensors of numbers with a point in what a model gives, in float64."""
    leaves = tree_leaves(output)
    return tuple(x.double() for x in leaves if isinstance(x, Tensor) and x.is_floating_point())


def argument(node: fx.Node, name: str, default: Any = None) -> Any:
    """An argument of an ATen call by its schema name, however it was passed."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for index, entry in enumerate(node.target._schema.arguments):
        if entry.name == name:
            if index < len(node.args):
                return node.args[index]
            return node.kwargs.get(name, entry.default_value if entry.has_default_value() else default)
    return default


def per_axis(node: fx.Node, name: str, axes: int) -> list[int]:
    """An argument of a convolution that is one number, or one for each axis of space.

    Example:
        >>> node = fx.Graph().call_function(torch.ops.aten.conv2d.default, (None, None, None, 2))
        >>> per_axis(node, "stride", 2)
        [2, 2]
    """
    value = argument(node, name)
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _in_float32(model: nn.Module) -> nn.Module:
    """The model, or a copy of it: ranges, moments and steps of a grid need more than half precision."""
    held = [x for x in chain(model.parameters(), model.buffers()) if x.is_floating_point()]
    return model if all(x.dtype == torch.float32 for x in held) else copy.deepcopy(model).float()


def _rename_methods(module: fx.GraphModule) -> None:
    """Give values named as methods of a module (``to``) other names: quantizers are submodules named so."""
    taken = nn.Module()
    for node in module.graph.nodes:
        if node.op == "call_function" and hasattr(taken, node.name):
            node._rename(f"{node.name}_value")


def _remove_idle(module: fx.GraphModule) -> None:
    """Take out what leaves values as they are; views no longer rely on a layout that it made."""
    for node in list(module.graph.nodes):
        if node.target in _NEED_LAYOUT:
            node.target = torch.ops.aten.reshape.default
        idle = op_name(node) in _IDLE
        if op_name(node) == "slice":  # x[:] leaves everything
            whole = argument(node, "start") in (None, 0) and argument(node, "end") in (None, sys.maxsize)
            idle = whole and argument(node, "step", 1) == 1
        if idle and isinstance(node.args[0], fx.Node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def _name_spatial_means(module: fx.GraphModule) -> None:
    """Replace means over all spatial axes by :class:`SpatialMean`."""
    for node in list(module.graph.nodes):
        keepdim = _spatial_mean(node)
        if keepdim is None:
            continue
        name = f"spatial_mean_{node.name}"
        module.add_submodule(name, SpatialMean(keepdim))
        with module.graph.inserting_after(node):
            new = module.graph.call_module(name, (node.args[0],))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
        new.name = node.name


def _flatten_linears(module: fx.GraphModule) -> None:
    """Give linear layers matrices: runtimes have an integer kernel for them, and none for more axes."""
    aten = torch.ops.aten
    for node in list(module.graph.nodes):
        source = node.args[0] if node.args else None
        x = value_of(source) if isinstance(source, fx.Node) else None
        if op_name(node) != "linear" or x is None or x.dim() == 2:
            continue
        y = value_of(node)
        assert y is not None
        if x.dim() < 2 or not all(isinstance(size, int) for size in y.shape[1:]):
            continue
        with module.graph.inserting_before(node):
            flat = module.graph.call_function(aten.flatten.using_ints, (source, 0, -2))
        flat.meta = {**node.meta, "val": aten.flatten.using_ints(x, 0, -2)}
        node.replace_input_with(source, flat)
        shape = [-1, *y.shape[1:]]
        with module.graph.inserting_after(node):
            back = module.graph.call_function(aten.view.default, (node, shape))
        back.meta = dict(node.meta)
        node.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
        node.meta = {**node.meta, "val": aten.flatten.using_ints(y, 0, -2)}


def _spatial_mean(node: fx.Node) -> bool | None:
    """Whether the axes are kept, or ``None`` where ``node`` is no mean over all spatial axes."""
    name = op_name(node)
    source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    x = value_of(source) if source is not None else None
    if x is None or x.dim() < 3:
        return None
    if name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"):
        size = argument(node, "output_size")
        return True if set([size] if isinstance(size, int) else size) == {1} else None
    if name == "mean" and str(node.target).endswith("mean.dim") and argument(node, "dtype") is None:
        axes = argument(node, "dim") or []
        if {a % x.dim() for a in axes} == set(range(2, x.dim())):
            return bool(argument(node, "keepdim", False))
    if name == "avg_pool2d":
        size = argument(node, "kernel_size")
        size = [size] * 2 if isinstance(size, int) else list(size) * (2 // len(size))
        if size == list(x.shape[2:]) and set(argument(node, "padding", [0])) == {0}:
            return None if argument(node, "divisor_override") else True
    return None
