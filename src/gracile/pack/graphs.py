"""A captured graph as plain data, and back: names, operations from a list, and plain arguments."""

from __future__ import annotations

import keyword
import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import fx, nn
from torch.utils import _pytree as pytree

from gracile.errors import UnsupportedOperation

from .modules import is_path
from .operations import name_of, operation
from .streams import broken

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_TEXT = re.compile(r"[A-Za-z0-9_ +.,>()-]{0,200}\Z")
_TORCH = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}
_DEEPEST = 20


@dataclass(frozen=True, kw_only=True)
class Node:
    """A step of a graph.

    ``op`` is ``input``, ``tensor`` (``target`` names it), ``module`` (``target`` is its path), ``output``, or
    the name of an operation. In ``args`` and ``kwargs``, ``"%relu_1"`` is the result of that node; a mapping
    with one key is a ``text``, ``tuple``, ``map``, ``float`` (not a finite one), ``dtype``, ``layout``,
    ``memory_format``, ``device`` or ``slice``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: str
    op: str
    target: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


_OPS = {"placeholder": "input", "get_attr": "tensor", "call_module": "module", "output": "output"}


def graph_to_plain(module: fx.GraphModule) -> tuple[Node, ...]:
    """All nodes of a graph, in order.

    Raises:
        UnsupportedOperation: The graph calls what archives may not call.
    """
    wrapped = _outputs(module)
    nodes = []
    for node in module.graph.nodes:
        if _asserts(node):
            continue
        op, target = _OPS.get(node.op, ""), str(node.target)
        if node.op == "call_function":
            op, target = name_of(node.target, node.name), ""
        elif node.op in ("placeholder", "output"):
            target = ""
        elif not op:
            raise UnsupportedOperation(node.name, wanted="a captured graph", found=f"{node.op} {target}")
        if not _NAME.match(node.name):
            raise UnsupportedOperation(
                node.name, wanted="names of up to 200 characters", found=f"{len(node.name)}"
            )
        args = (wrapped,) if node.op == "output" else () if node.op == "placeholder" else node.args
        kwargs = {} if node.op == "placeholder" else node.kwargs
        nodes.append(
            Node(
                name=node.name,
                op=op,
                target=target,
                args=tuple(_plain(a, node) for a in args),
                kwargs={key: _plain(value, node) for key, value in kwargs.items()},
            )
        )
    return tuple(nodes)


def graph_from_plain(nodes: tuple[Node, ...], root: nn.Module) -> fx.GraphModule:
    """A graph module that runs ``nodes`` on the tensors and modules of ``root``.

    Raises:
        StorageError: A node is not what archives may hold.
    """
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    ends = [node.op for node in nodes[-1:]]
    if ends != ["output"] or sum(node.op == "output" for node in nodes) != 1:
        raise broken("a graph that ends with its output", f"{len(nodes)} nodes")
    for node in nodes:
        if not _NAME.match(node.name) or keyword.iskeyword(node.name) or node.name in made:
            raise broken("a new name for each node", repr(node.name)[:80])
        args = tuple(_value(a, made) for a in node.args)
        if any(not _NAME.match(key) or keyword.iskeyword(key) for key in node.kwargs):
            raise broken("names of arguments", str(list(node.kwargs))[:80])
        kwargs = {key: _value(value, made) for key, value in node.kwargs.items()}
        made[node.name] = _create(graph, node, root, args, kwargs)
    return fx.GraphModule(root, graph)


def _create(
    graph: fx.Graph, node: Node, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> fx.Node:
    if node.op in ("tensor", "module"):
        if not is_path(node.target) or not _present(root, node):
            raise broken(f"a {node.op} of the archive", repr(node.target)[:80])
        kind = "get_attr" if node.op == "tensor" else "call_module"
        return graph.create_node(kind, node.target, args, kwargs, name=node.name)
    if node.op == "input":
        return graph.create_node("placeholder", node.name, name=node.name)
    if node.op == "output":
        if len(args) != 1 or kwargs:
            raise broken("one output", f"{len(args)}")
        return graph.create_node("output", "output", args, name=node.name)
    made = graph.create_node("call_function", operation(node.op), args, kwargs, name=node.name)
    if made.name != node.name:
        raise broken("a name that a node may have", repr(node.name))
    return made


def _present(root: nn.Module, node: Node) -> bool:
    owner, _, last = node.target.rpartition(".")
    try:
        module = root.get_submodule(owner)
    except AttributeError:
        return False
    if node.op == "module":
        return last in module._modules
    return last in module._parameters or last in module._buffers


def _asserts(node: fx.Node) -> bool:
    """A check of what the exporter assumed; it has no result."""
    return node.op == "call_function" and not node.users and "_assert" in str(node.target)


def _outputs(module: fx.GraphModule) -> Any:
    """The output as the caller gets it: exported graphs keep its structure apart."""
    graph = module.graph
    output = next(n for n in graph.nodes if n.op == "output")
    info = getattr(graph._codegen, "pytree_info", None)
    if info is None:
        return output.args[0]
    inputs = sum(n.op == "placeholder" for n in graph.nodes)
    taken = pytree.tree_unflatten(list(range(inputs)), info.in_spec)
    if tuple(taken[0]) != tuple(range(inputs)) or taken[1]:
        raise UnsupportedOperation(
            type(module).__name__, wanted="inputs that are tensors, one after the other", found=f"{taken}"
        )
    flat = output.args[0]
    return flat if info.out_spec is None else pytree.tree_unflatten(list(flat), info.out_spec)


def _plain(value: Any, node: fx.Node) -> Any:
    """An argument as JSON data."""
    if isinstance(value, fx.Node):
        return f"%{value.name}"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, str) and _TEXT.match(value):
        return {"text": value}
    if isinstance(value, list | fx.immutable_collections.immutable_list):
        return [_plain(v, node) for v in value]
    if type(value) is tuple:
        return {"tuple": [_plain(v, node) for v in value]}
    if isinstance(value, dict) and all(isinstance(k, str) and _TEXT.match(k) for k in value):
        return {"map": {k: _plain(v, node) for k, v in value.items()}}
    if isinstance(value, slice):
        return {"slice": [_plain(v, node) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    for name, kind in _TORCH.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    raise UnsupportedOperation(
        node.name, wanted="arguments that are plain data", found=f"{type(value).__name__} {str(value)[:80]}"
    )


def _value(data: Any, made: dict[str, fx.Node], depth: int = 0) -> Any:
    """Undo :func:`_plain`."""
    if depth > _DEEPEST:
        raise broken("arguments", "too many levels")
    if data is None or isinstance(data, bool | int | float):
        return data
    if isinstance(data, str) and data.startswith("%") and data[1:] in made:
        return made[data[1:]]
    if isinstance(data, list | tuple):
        return [_value(v, made, depth + 1) for v in data]
    if isinstance(data, dict) and len(data) == 1:
        return _tagged(*next(iter(data.items())), made, depth + 1)
    raise broken("arguments of a node", repr(data)[:80])


def _tagged(tag: str, data: Any, made: dict[str, fx.Node], depth: int) -> Any:
    if tag == "text" and isinstance(data, str) and _TEXT.match(data):
        return data
    if tag == "float" and data in ("inf", "-inf", "nan"):
        return float(data)
    if tag == "device" and data == "cpu":
        return torch.device("cpu")
    if tag in ("tuple", "slice") and isinstance(data, list):
        values = [_value(v, made, depth) for v in data]
        if tag == "tuple":
            return tuple(values)
        if len(values) == 3:
            return slice(*values)
    if tag == "map" and isinstance(data, dict) and all(_TEXT.match(k) for k in data):
        return {k: _value(v, made, depth) for k, v in data.items()}
    kind = _TORCH.get(tag)
    if kind is not None and isinstance(data, str) and isinstance(getattr(torch, data, None), kind):
        return getattr(torch, data)
    raise broken("arguments of a node", f"{tag}: {data!r}"[:80])
