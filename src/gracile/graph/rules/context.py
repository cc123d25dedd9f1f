"""What every rule works with: the labels, the values so far, and how to read a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..labels import Labels
from ..values import Value

Result = Value | tuple["Value | None", ...] | None


@dataclass
class Context:
    """What a rule may use: the labels, the values so far, and notes for roles and proofs.

    ``reads`` and ``writes`` hold label vectors of weight axes, ``consumed`` labels that a reduction or
    a product of two activations takes in, ``shrinking`` nodes whose reduced axis can lose entries.
    """

    labels: Labels
    env: dict[fx.Node, Result]
    reads: list[Tensor] = field(default_factory=list)
    writes: list[Tensor] = field(default_factory=list)
    consumed: list[Tensor] = field(default_factory=list)
    shrinking: list[fx.Node] = field(default_factory=list)
    gathered: frozenset[str] = frozenset()
    """Convolutions that read a choice of their input's channels, which stays as it is."""

    def get(self, node: fx.Node) -> Value:
        """The value of a node with one tensor output."""
        found = self.env.get(node)
        return found if isinstance(found, Value) else Value(shape_of(node))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor output as captured."""
    val = node.meta.get("val")
    return tuple(int(s) for s in val.shape) if isinstance(val, Tensor) else ()


def packet(node: fx.Node) -> str:
    """Name of the operation without overload and without the in-place mark."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        return name[:-1] if name.endswith("_") and not name.startswith("_") else name
    return getattr(target, "__name__", str(target))


def bound(node: fx.Node) -> dict[str, Any]:
    """Arguments of an ATen call by their schema names, defaults filled in."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    found: dict[str, Any] = {}
    schema: Any = target._schema
    for i, a in enumerate(schema.arguments):
        default = a.default_value if a.has_default_value() else None
        found[a.name] = node.args[i] if i < len(node.args) else node.kwargs.get(a.name, default)
    return found


def unknown(ctx: Context, node: fx.Node) -> Result:
    """Freeze everything that goes in; what comes out carries no labels."""
    for source in node.all_input_nodes:
        found = ctx.env.get(source)
        for v in found if isinstance(found, tuple) else (found,):
            for p in v.planes if v is not None else ():
                ctx.labels.freeze(p, f"goes into {node.target}, which Gracile does not know", node.name)
    val = node.meta.get("val")
    if isinstance(val, list | tuple):
        return tuple(Value(tuple(t.shape)) if isinstance(t, Tensor) else None for t in val)
    return Value(shape_of(node)) if isinstance(val, Tensor) else None
