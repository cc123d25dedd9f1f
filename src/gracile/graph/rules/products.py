"""Sums of products: convolutions, linear layers, matrix products and attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from ..labels import Plane, along, spread, varying
from ..values import Value, contract, merge, reduce_over, value
from .context import Context, Result, bound, packet, shape_of, unknown


def vectors_along(
    ctx: Context, v: Value, dim: int, node: fx.Node, why: str
) -> tuple[list[Tensor], list[Plane]]:
    """Label vectors along ``dim`` (mixed planes are tied over their other axes) and the planes beside it."""
    found, beside = [], []
    for p in v.planes:
        vary = varying(p)
        if dim not in vary:
            beside.append(p)
            continue
        others = [d for d in vary if d != dim]
        found.append(along(reduce_over(ctx.labels, p, others, node.name) if others else p, dim))
    for p in beside if why else []:
        ctx.labels.freeze(p, why, node.name)
    return found, beside


def tie_all(ctx: Context, vectors: list[Tensor], node: fx.Node) -> Tensor | None:
    for other in vectors[1:]:
        ctx.labels.tie(vectors[0], other, node.name)
    return vectors[0] if vectors else None


def _read(ctx: Context, x: Tensor | None, w: Tensor | None, node: fx.Node) -> None:
    """The input axis of a weight meets the channels it reads."""
    if x is not None and w is not None:
        ctx.labels.tie(x, w, node.name)
        ctx.reads.append(w)
    elif w is not None:
        ctx.labels.freeze(w, "reads values that stay (an input or a constant)", node.name)
    elif x is not None:
        ctx.labels.freeze(x, "is read by weights that cannot be sliced", node.name)


def tie_bias(ctx: Context, out: Tensor | None, bias: Any, node: fx.Node) -> None:
    if isinstance(bias, fx.Node):
        for p in ctx.get(bias).planes:
            if out is None:
                ctx.labels.freeze(p, "is added to channels that stay", node.name)
            else:
                ctx.labels.tie(out, along(p, 0), node.name)


def conv_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x, w, groups = ctx.get(args["input"]), ctx.get(args["weight"]), int(args.get("groups") or 1)
    transposed = "transpose" in packet(node) or bool(args.get("transposed"))
    shape = shape_of(node)
    channel = 1 if len(shape) == len(w.shape) else 0
    xs, _ = vectors_along(ctx, x, channel, node, "varies over the positions of a convolution")
    x_in = tie_all(ctx, xs, node)
    axis_in, axis_out = (0, 1) if transposed else (1, 0)
    w_ins = [along(p, axis_in) for p in w.planes if varying(p) == [axis_in]]
    w_outs = [along(p, axis_out) for p in w.planes if varying(p) == [axis_out]]
    for p in w.planes:
        if varying(p) not in ([axis_in], [axis_out]):
            ctx.labels.freeze(p, "varies inside a kernel", node.name)
    w_in, w_out = tie_all(ctx, w_ins, node), tie_all(ctx, w_outs, node)
    if groups == 1:
        if node.name in ctx.gathered and w_in is not None:
            ctx.reads.append(w_in)
            for t in [] if x_in is None else [x_in]:
                ctx.labels.freeze(t, "is read by a choice of its channels", node.name)
        else:
            _read(ctx, x_in, w_in, node)
        out = w_out
        if w_out is not None:
            ctx.writes.append(w_out)
    else:
        out = _grouped(ctx, node, x_in, w_in, w_out, groups, tuple(w.shape), transposed)
    tie_bias(ctx, out, args.get("bias"), node)
    return value(shape, [spread(out, shape, channel)] if out is not None else ())


def _grouped(
    ctx: Context,
    node: fx.Node,
    x_in: Tensor | None,
    w_in: Tensor | None,
    w_out: Tensor | None,
    groups: int,
    w_shape: tuple[int, ...],
    transposed: bool,
) -> Tensor | None:
    """Grouped convolution: whole groups go (many small groups), or the same index in every group."""
    per_in = w_shape[0] // groups if transposed else w_shape[1]
    full, inner = (w_in, w_out) if transposed else (w_out, w_in)
    if x_in is None or full is None:
        for t in (x_in, w_in, w_out):
            if t is not None:
                ctx.labels.freeze(t, "belongs to a grouped convolution over values that stay", node.name)
        return None
    x, rows = x_in.reshape(groups, per_in), full.reshape(groups, -1)
    if groups >= per_in:  # whole groups; depthwise is the case per_in == 1
        ctx.labels.tie(x, x[:, :1], node.name)
        ctx.labels.tie(rows, x[:, :1], node.name)
        if inner is not None:
            ctx.labels.freeze(inner, "stays inside its group: whole groups go", node.name)
        if per_in > 1:
            ctx.writes.append(full)
        outs = w_shape[1] if transposed else rows.size(1)
        return x[:, :1].expand(groups, outs).reshape(-1)
    ctx.labels.tie(x, x[:1], node.name)
    ctx.labels.tie(rows, rows[:1], node.name)
    if transposed:
        ctx.labels.tie(rows, x, node.name)
        ctx.reads.append(full)
        if inner is None:
            return None
        ctx.writes.append(inner)
        return inner.reshape(1, -1).expand(groups, -1).reshape(-1)
    _read(ctx, x[0], inner, node)
    ctx.writes.append(full)
    return full


def linear_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x, w = ctx.get(args["input"]), ctx.get(args["weight"])
    shape = shape_of(node)
    xs, beside = vectors_along(ctx, x, len(x.shape) - 1, node, "")
    w_in = tie_all(ctx, [along(p, 1) for p in w.planes if varying(p) == [1]], node)
    w_out = tie_all(ctx, [along(p, 0) for p in w.planes if varying(p) == [0]], node)
    for p in w.planes:
        if len(varying(p)) > 1:
            ctx.labels.freeze(p, "varies along both axes of a weight", node.name)
    _read(ctx, tie_all(ctx, xs, node), w_in, node)
    if w_out is not None:
        ctx.writes.append(w_out)
    tie_bias(ctx, w_out, args.get("bias"), node)
    planes = [p.narrow(-1, 0, 1).expand(shape) for p in beside]
    if w_out is not None:
        planes.append(spread(w_out, shape, len(shape) - 1))
    return value(shape, planes)


def matmul_rule(ctx: Context, node: fx.Node) -> Result:
    a, b = (
        (ctx.get(n) for n in node.all_input_nodes[:2])
        if len(node.all_input_nodes) > 1
        else (ctx.get(node.all_input_nodes[0]), ctx.get(node.all_input_nodes[0]))
    )
    shape = shape_of(node)
    batch = "abcdefgh"[: max(len(a.shape), len(b.shape)) - 2]
    left = (batch[len(batch) - max(len(a.shape) - 2, 0) :]) + ("mk" if len(a.shape) > 1 else "k")
    right = (batch[len(batch) - max(len(b.shape) - 2, 0) :]) + ("kn" if len(b.shape) > 1 else "k")
    out = batch + ("m" if len(a.shape) > 1 else "") + ("n" if len(b.shape) > 1 else "")
    return _contracted(ctx, node, [(a, left), (b, right)], out, shape)


def _contracted(
    ctx: Context, node: fx.Node, operands: list[tuple[Value, str]], out: str, shape: tuple[int, ...]
) -> Result:
    for v, letters in operands:
        ctx.consumed += [
            along(p, d)
            for p in v.planes
            for d in varying(p)
            if len(varying(p)) == 1 and letters[d] not in out
        ]
    result, narrowed = contract(ctx.labels, operands, out, shape, node.name)
    if narrowed:
        ctx.shrinking.append(node)
    return result


def einsum_rule(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    equation = str(args["equation"]).replace(" ", "")
    if "->" not in equation or "." in equation or len(args["tensors"]) != 2:
        return unknown(ctx, node)
    inputs, out = equation.split("->")
    operands = list(zip([ctx.get(n) for n in args["tensors"]], inputs.split(","), strict=True))
    if any(len(set(ls)) != len(ls) for _, ls in operands):
        return unknown(ctx, node)
    return _contracted(ctx, node, operands, out, shape_of(node))


def attention_rule(ctx: Context, node: fx.Node) -> Result:
    """Scaled dot-product attention: heads go whole; the values of a single head may go one by one."""
    args = bound(node)
    shape = shape_of(node)
    parts: list[Value] = []
    for name in ("query", "key", "value", "attn_mask"):
        other = args.get(name)
        if not isinstance(other, fx.Node):
            continue
        v = ctx.get(other)
        rank, last, planes = len(v.shape), len(v.shape) - 1, []
        for p in v.planes:
            vary = varying(p)
            if rank - 2 in vary or (vary == [last] and name != "value"):
                ctx.labels.freeze(
                    p, "is an axis of attention that stays (positions, or the only head)", node.name
                )
            elif last in vary and len(vary) > 1:
                planes.append(reduce_over(ctx.labels, p, [last], node.name))
            else:
                planes.append(p)
        if name == "value":
            sizes = (*v.shape[:-2], 1, v.shape[-1])
            parts.append(Value(sizes, tuple(p.narrow(-2, 0, 1) for p in planes)))
        else:
            sizes = (*v.shape[:-2], 1, 1)
            parts.append(Value(sizes, tuple(p.narrow(-2, 0, 1).narrow(-1, 0, 1) for p in planes)))
    return merge(ctx.labels, parts, shape, node.name)
