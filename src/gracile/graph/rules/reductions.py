"""Reductions over axes, and windows over positions."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..labels import core, varying
from ..values import reduce_over, value
from .context import Context, Result, bound, packet
from .elementwise import pointwise_rule


def _positive(dims: Any, rank: int) -> list[int]:
    if dims is None or dims == []:
        return list(range(rank))
    listed = [dims] if isinstance(dims, int) else list(dims)
    return [d % rank for d in listed]


REDUCTIONS = frozenset(
    [
        "mean",
        "sum",
        "amax",
        "amin",
        "var",
        "std",
        "linalg_vector_norm",
        "norm",
        "var_mean",
        "std_mean",
        "max",
        "min",
        "logsumexp",
        "nansum",
    ]
)
SHAPE_KEEPING = frozenset(["softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum"])
WINDOWS = (
    "avg_pool",
    "max_pool",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "upsample",
    "_upsample",
    "lp_pool",
)


def reduction_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    if "other" in args:  # ``torch.max(a, b)``
        return pointwise_rule(ctx, node)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    x = ctx.get(source)
    rank = len(x.shape)
    dims = _positive(args.get("dim"), rank)
    keepdim = bool(args.get("keepdim"))
    val = node.meta.get("val")
    shape = _first_shape(node)
    planes = []
    for p in x.planes:
        vary = varying(p)
        inner = [d for d in vary if d in dims]
        if inner and len(inner) == len(vary):
            ctx.shrinking.append(node)
            ctx.consumed.append(core(p).reshape(-1))
            continue
        p = reduce_over(ctx.labels, p, inner, node.name) if inner else p
        for d in sorted(dims, reverse=True):
            p = p.narrow(d, 0, 1) if keepdim else p.select(d, 0)
        planes.append(p)
    result = value(shape, planes)
    return tuple(result for _ in val) if isinstance(val, list | tuple) else result


def shape_keeping_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x = ctx.get(node.all_input_nodes[0])
    dim = int(args["dim"]) % len(x.shape)
    planes = []
    for p in x.planes:
        vary = varying(p)
        if vary == [dim]:
            ctx.labels.freeze(p, f"{packet(node)} runs over it", node.name)
            continue
        planes.append(reduce_over(ctx.labels, p, [dim], node.name) if dim in vary else p)
    return value(x.shape, planes)


def window_rule(ctx: Context, node: fx.Node) -> Result:
    """Pooling and resampling act on the last axes; labels must not vary there."""
    name = packet(node)
    axes = next((int(c) for c in name if c.isdigit()), 2)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    x, shape = ctx.get(source), _first_shape(node)
    planes = []
    for p in x.planes:
        if any(d >= len(x.shape) - axes for d in varying(p)):
            ctx.labels.freeze(p, f"varies over the positions that {name} mixes", node.name)
            continue
        for d in range(len(x.shape) - axes, len(x.shape)):
            p = p.narrow(d, 0, 1)
        planes.append(p.expand(shape))
    result = value(shape, planes)
    val = node.meta.get("val")
    return tuple(result for _ in val) if isinstance(val, list | tuple) else result


def _first_shape(node: fx.Node) -> tuple[int, ...]:
    val = node.meta.get("val")
    first = val[0] if isinstance(val, list | tuple) else val
    return tuple(int(s) for s in first.shape)  # type: ignore[union-attr]
