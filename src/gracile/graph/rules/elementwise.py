"""Element by element: what meets goes together."""

from __future__ import annotations

import torch
from torch import fx

from ..labels import along, spread
from ..values import Value, merge
from .context import Context, Result, packet, shape_of

EXTRA_POINTWISE = frozenset(
    [
        "hardswish",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "alias",
        "detach",
        "lift_fresh_copy",
        "lift_fresh",
        "to",
        "_to_copy",
        "type_as",
        "zero",
        "fill",
        "copy",
        "relu6",
        "clone",
        "hardtanh",
        "celu",
        "elu",
        "selu",
        "mish",
        "softplus",
        "clamp",
        "float",
        "double",
        "half",
    ]
)


def is_pointwise(node: fx.Node) -> bool:
    """Whether PyTorch itself tags the operation as element by element (or it is one of the untagged few)."""
    if packet(node) in EXTRA_POINTWISE:
        return True
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def pointwise_rule(ctx: Context, node: fx.Node) -> Result:
    operands = [ctx.get(n) for n in node.all_input_nodes]
    return merge(ctx.labels, operands, shape_of(node), node.name)


def prelu_rule(ctx: Context, node: fx.Node) -> Result:
    x, w = (ctx.get(n) for n in node.all_input_nodes)
    rank = len(x.shape)
    if len(w.shape) == 1 and w.shape[0] > 1 and rank > 1:
        shape = tuple(w.shape[0] if d == 1 else 1 for d in range(rank))
        w = Value(shape, tuple(spread(along(p, 0), shape, 1) for p in w.planes))
    return merge(ctx.labels, [x, w], x.shape, node.name)
