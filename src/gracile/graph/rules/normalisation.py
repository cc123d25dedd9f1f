"""Normalisations: their parameters follow the channels; those that reduce over channels are noted."""

from __future__ import annotations

from torch import fx

from ..labels import spread, varying
from ..values import Value, merge, reduce_over, value
from .context import Context, Result, bound, shape_of
from .products import tie_all, tie_bias, vectors_along


def batch_norm_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x = ctx.get(args["input"])
    batch_stats = bool(args.get("training", args.get("use_input_stats")))
    xs, beside = vectors_along(ctx, x, 1, node, "")
    channel = tie_all(ctx, xs, node)
    if batch_stats and beside:
        ctx.shrinking.append(node)
    for name in ("weight", "bias", "running_mean", "running_var"):
        other = args.get(name)
        if isinstance(other, fx.Node):
            ows, _ = vectors_along(ctx, ctx.get(other), 0, node, "")
            for vector in ows:
                if channel is None:
                    ctx.labels.freeze(vector, "normalises values that stay", node.name)
                else:
                    ctx.labels.tie(channel, vector, node.name)
            if not ows and channel is not None and ctx.get(other).shape[0] > 1:
                ctx.labels.freeze(channel, "is normalised by constants", node.name)
    planes = list(beside) + ([spread(channel, x.shape, 1)] if channel is not None else [])
    return value(shape_of(node), planes)


def layer_norm_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x = ctx.get(args["input"])
    rank = len(x.shape)
    inner = set(range(rank - len(args["normalized_shape"]), rank))
    planes = []
    for p in x.planes:
        vary = set(varying(p))
        if vary & inner and vary - inner:
            p = reduce_over(ctx.labels, p, sorted(vary & inner), node.name)
        elif vary & inner:
            ctx.shrinking.append(node)
        planes.append(p)
    operands = [Value(x.shape, tuple(planes))]
    operands += [ctx.get(args[n]) for n in ("weight", "bias") if isinstance(args.get(n), fx.Node)]
    return merge(ctx.labels, operands, x.shape, node.name)


def group_norm_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x, groups = ctx.get(args["input"]), int(args["num_groups"])
    xs, _beside = vectors_along(ctx, x, 1, node, "lies inside the groups of a GroupNorm")
    channel = tie_all(ctx, xs, node)
    if channel is not None and groups == 1:
        ctx.shrinking.append(node)
    elif channel is not None:
        grouped = channel.reshape(groups, -1)
        ctx.labels.tie(grouped, grouped[:, :1], node.name)  # whole groups go, the others' statistics stay
    for name in ("weight", "bias"):
        if isinstance(args.get(name), fx.Node):
            tie_bias(ctx, channel, args[name], node)
    return value(x.shape, [spread(channel, x.shape, 1)] if channel is not None else ())
