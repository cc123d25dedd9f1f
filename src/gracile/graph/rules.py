"""How labels pass through each kind of operation.

Operations fall into few kinds: data movement (run literally on the labels), element by element (what meets goes
together), sums of products (convolution, linear, matrix product), normalisations, reductions and windows over
space. An operation of no known kind freezes what it touches; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from .labels import Labels, Plane, along, core, shrink, spread, varying
from .values import Value, contract, literal_planes, merge, reduce_over, value

Result = Value | tuple["Value | None", ...] | None


@dataclass
class Context:
    """What a rule may use: the labels, the values so far, and notes for the proofs."""

    labels: Labels
    env: dict[fx.Node, Result]
    reads: list[Tensor] = field(default_factory=list)
    writes: list[Tensor] = field(default_factory=list)
    shrinking: list[fx.Node] = field(default_factory=list)

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
    for i, a in enumerate(target._schema.arguments):
        default = a.default_value if a.has_default_value() else None
        found[a.name] = node.args[i] if i < len(node.args) else node.kwargs.get(a.name, default)
    return found


def _positive(dims: Any, rank: int) -> list[int]:
    if dims is None or dims == []:
        return list(range(rank))
    listed = [dims] if isinstance(dims, int) else list(dims)
    return [d % rank for d in listed]


# --- data movement -------------------------------------------------------------------------------------------

LITERAL = frozenset(
    ["view", "reshape", "_unsafe_view", "view_as", "reshape_as", "permute", "transpose", "t", "numpy_T", "swapaxes", "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave", "slice", "select", "narrow", "index_select", "index", "flip", "roll", "flatten", "unflatten", "unfold", "im2col", "unbind", "split", "split_with_sizes", "chunk", "tensor_split", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "diagonal", "rot90", "ravel", "hsplit", "vsplit", "atleast_2d", "take_along_dim", "gather", "contiguous", "adjoint", "mT"]
)
SPLITS = frozenset(["split", "split_with_sizes", "chunk", "tensor_split", "unbind"])


def _literal(ctx: Context, node: fx.Node) -> Result:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    v = ctx.get(source)

    def run(plane: Plane) -> Any:
        def stand_in(n: fx.Node) -> Any:
            if n is source:
                return plane
            other = ctx.get(n)
            return other.concrete if other.concrete is not None else torch.zeros(()).expand(other.shape)

        args = fx.node.map_arg(node.args, stand_in)
        kwargs = fx.node.map_arg(node.kwargs, stand_in)
        try:
            return node.target(*args, **kwargs)  # type: ignore[operator]
        except (NotImplementedError, RuntimeError):  # no integer kernel: labels are exact in float64
            args = (plane.double(), *args[1:])
            moved = node.target(*args, **kwargs)  # type: ignore[operator]
            return [m.long() for m in moved] if isinstance(moved, list | tuple) else moved.long()

    val = node.meta.get("val")
    many = isinstance(val, list | tuple)
    planes = literal_planes(v, run, many)
    if not many:
        return value(shape_of(node), planes[0] if planes else ())
    pieces = tuple(value(tuple(t.shape), planes[i] if planes else ()) for i, t in enumerate(val))
    if packet(node) in SPLITS and len({p.shape for p in pieces}) == 1 and planes:
        _tie_equal_pieces(ctx, node, v, planes)
    return pieces


def _tie_equal_pieces(ctx: Context, node: fx.Node, v: Value, planes: list[list[Plane]]) -> None:
    """Code that cuts in equal pieces cuts elsewhere when pieces shrink unequally: their entries go together."""
    dim = int(bound(node).get("dim") or 0) % len(v.shape)
    for i, p in enumerate(v.planes):
        if dim in varying(p):
            for piece in planes[1:]:
                ctx.labels.tie(planes[0][i], piece[i], node.name)


def _pad(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    v, mode = ctx.get(node.args[0]), args.get("mode") or "constant"  # type: ignore[arg-type]
    pads, rank, shape = list(args["pad"]), len(v.shape), shape_of(node)
    padded = [rank - 1 - i // 2 for i in range(0, len(pads), 2) if pads[i] or pads[i + 1]]
    planes = []
    for p in v.planes:
        hit = [d for d in padded if d in varying(p)]
        if hit and mode != "constant":
            ctx.labels.freeze(p, f"is padded by {mode}", node.name)
        small = core(p)
        own = [x if rank - 1 - i // 2 in hit else 0 for i, x in enumerate(pads)]
        small = torch.nn.functional.pad(small, own) if any(own) else small
        if hit and mode != "constant":
            planes.append(torch.zeros((), dtype=torch.long).expand(shape))
        else:
            planes.append(small.expand(shape))
    return value(shape, planes)


def _cat(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    nodes: list[fx.Node] = list(args["tensors"])
    values = [ctx.get(n) for n in nodes if shape_of(n) != (0,)]
    if packet(node) == "stack":
        dim = int(args.get("dim") or 0) % (len(values[0].shape) + 1)
        values = [
            Value((*v.shape[:dim], 1, *v.shape[dim:]), tuple(p.unsqueeze(dim) for p in v.planes))
            for v in values
        ]
    else:
        dim = int(args.get("dim") or 0) % len(values[0].shape)
    shape = shape_of(node)
    beside, joined = [], []
    for v in values:
        across = [p for p in v.planes if dim not in varying(p)]
        beside.append(
            Value(
                tuple(1 if d == dim else s for d, s in enumerate(v.shape)),
                tuple(p.narrow(dim, 0, 1) for p in across),
            )
        )
        joined.append([p for p in v.planes if dim in varying(p)])
    planes = list(
        merge(ctx.labels, beside, [1 if d == dim else s for d, s in enumerate(shape)], node.name).planes
    )
    planes = [p.expand(shape) for p in planes]
    for k in range(max((len(j) for j in joined), default=0)):
        parts = [
            j[k] if k < len(j) else torch.zeros((), dtype=torch.long).expand(v.shape)
            for j, v in zip(joined, values, strict=True)
        ]
        planes.append(_cat_lazily(parts, dim, shape))
    return value(shape, planes)


def _cat_lazily(parts: list[Plane], dim: int, shape: tuple[int, ...]) -> Plane:
    for d in range(len(shape)):
        if d != dim and shape[d] > 1 and all(p.stride(d) == 0 for p in parts):
            parts = [p.narrow(d, 0, 1) for p in parts]
    return shrink(torch.cat(parts, dim).expand(shape))


# --- element by element --------------------------------------------------------------------------------------

EXTRA_POINTWISE = frozenset(
    ["hardswish", "dropout", "feature_dropout", "alpha_dropout", "contiguous", "alias", "detach", "lift_fresh_copy", "lift_fresh", "to", "_to_copy", "type_as", "zero", "fill", "copy", "relu6", "clone", "hardtanh", "celu", "elu", "selu", "mish", "softplus", "clamp", "float", "double", "half"]
)


def is_pointwise(node: fx.Node) -> bool:
    """Whether PyTorch itself tags the operation as element by element (or it is one of the untagged few)."""
    if packet(node) in EXTRA_POINTWISE:
        return True
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def _pointwise(ctx: Context, node: fx.Node) -> Result:
    operands = [ctx.get(n) for n in node.all_input_nodes]
    return merge(ctx.labels, operands, shape_of(node), node.name)


def _prelu(ctx: Context, node: fx.Node) -> Result:
    x, w = (ctx.get(n) for n in node.all_input_nodes)
    rank = len(x.shape)
    if len(w.shape) == 1 and w.shape[0] > 1 and rank > 1:
        shape = tuple(w.shape[0] if d == 1 else 1 for d in range(rank))
        w = Value(shape, tuple(spread(along(p, 0), shape, 1) for p in w.planes))
    return merge(ctx.labels, [x, w], x.shape, node.name)


# --- sums of products ----------------------------------------------------------------------------------------


def _vectors(ctx: Context, v: Value, dim: int, node: fx.Node, why: str) -> tuple[list[Tensor], list[Plane]]:
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


def _tie_all(ctx: Context, vectors: list[Tensor], node: fx.Node) -> Tensor | None:
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


def _bias(ctx: Context, out: Tensor | None, bias: Any, node: fx.Node) -> None:
    if isinstance(bias, fx.Node):
        for p in ctx.get(bias).planes:
            if out is None:
                ctx.labels.freeze(p, "is added to channels that stay", node.name)
            else:
                ctx.labels.tie(out, along(p, 0), node.name)


def _conv(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x, w, groups = ctx.get(args["input"]), ctx.get(args["weight"]), int(args.get("groups") or 1)
    transposed = "transpose" in packet(node) or bool(args.get("transposed"))
    shape = shape_of(node)
    channel = 1 if len(shape) == len(w.shape) else 0
    xs, _ = _vectors(ctx, x, channel, node, "varies over the positions of a convolution")
    x_in = _tie_all(ctx, xs, node)
    axis_in, axis_out = (0, 1) if transposed else (1, 0)
    w_ins = [along(p, axis_in) for p in w.planes if varying(p) == [axis_in]]
    w_outs = [along(p, axis_out) for p in w.planes if varying(p) == [axis_out]]
    for p in w.planes:
        if varying(p) not in ([axis_in], [axis_out]):
            ctx.labels.freeze(p, "varies inside a kernel", node.name)
    w_in, w_out = _tie_all(ctx, w_ins, node), _tie_all(ctx, w_outs, node)
    if groups == 1:
        _read(ctx, x_in, w_in, node)
        out = w_out
        if w_out is not None:
            ctx.writes.append(w_out)
    else:
        out = _grouped(ctx, node, x_in, w_in, w_out, groups, tuple(w.shape), transposed)
    _bias(ctx, out, args.get("bias"), node)
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


def _linear(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x, w = ctx.get(args["input"]), ctx.get(args["weight"])
    shape = shape_of(node)
    xs, beside = _vectors(ctx, x, len(x.shape) - 1, node, "")
    w_in = _tie_all(ctx, [along(p, 1) for p in w.planes if varying(p) == [1]], node)
    w_out = _tie_all(ctx, [along(p, 0) for p in w.planes if varying(p) == [0]], node)
    for p in w.planes:
        if len(varying(p)) > 1:
            ctx.labels.freeze(p, "varies along both axes of a weight", node.name)
    _read(ctx, _tie_all(ctx, xs, node), w_in, node)
    if w_out is not None:
        ctx.writes.append(w_out)
    _bias(ctx, w_out, args.get("bias"), node)
    planes = [p.narrow(-1, 0, 1).expand(shape) for p in beside]
    if w_out is not None:
        planes.append(spread(w_out, shape, len(shape) - 1))
    return value(shape, planes)


def _matmul(ctx: Context, node: fx.Node) -> Result:
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
        ctx.reads += [
            along(p, d)
            for p in v.planes
            for d in varying(p)
            if len(varying(p)) == 1 and letters[d] not in out
        ]
    result, narrowed = contract(ctx.labels, operands, out, shape, node.name)
    if narrowed:
        ctx.shrinking.append(node)
    return result


def _einsum(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    equation = str(args["equation"]).replace(" ", "")
    if "->" not in equation or "." in equation or len(args["tensors"]) != 2:
        return _unknown(ctx, node)
    inputs, out = equation.split("->")
    operands = list(zip([ctx.get(n) for n in args["tensors"]], inputs.split(","), strict=True))
    if any(len(set(ls)) != len(ls) for _, ls in operands):
        return _unknown(ctx, node)
    return _contracted(ctx, node, operands, out, shape_of(node))


def _attention(ctx: Context, node: fx.Node) -> Result:
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


# --- normalisation -------------------------------------------------------------------------------------------


def _batch_norm(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x = ctx.get(args["input"])
    batch_stats = bool(args.get("training", args.get("use_input_stats")))
    xs, beside = _vectors(ctx, x, 1, node, "")
    channel = _tie_all(ctx, xs, node)
    if batch_stats and beside:
        ctx.shrinking.append(node)
    for name in ("weight", "bias", "running_mean", "running_var"):
        other = args.get(name)
        if isinstance(other, fx.Node):
            ows, _ = _vectors(ctx, ctx.get(other), 0, node, "")
            for vector in ows:
                if channel is None:
                    ctx.labels.freeze(vector, "normalises values that stay", node.name)
                else:
                    ctx.labels.tie(channel, vector, node.name)
            if not ows and channel is not None and ctx.get(other).shape[0] > 1:
                ctx.labels.freeze(channel, "is normalised by constants", node.name)
    planes = list(beside) + ([spread(channel, x.shape, 1)] if channel is not None else [])
    return value(shape_of(node), planes)


def _layer_norm(ctx: Context, node: fx.Node) -> Result:
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


def _group_norm(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    x, groups = ctx.get(args["input"]), int(args["num_groups"])
    xs, _beside = _vectors(ctx, x, 1, node, "lies inside the groups of a GroupNorm")
    channel = _tie_all(ctx, xs, node)
    if channel is not None and groups == 1:
        ctx.shrinking.append(node)
    elif channel is not None:
        grouped = channel.reshape(groups, -1)
        ctx.labels.tie(grouped, grouped[:, :1], node.name)  # whole groups go, the others' statistics stay
    for name in ("weight", "bias"):
        if isinstance(args.get(name), fx.Node):
            _bias(ctx, channel, args[name], node)
    return value(x.shape, [spread(channel, x.shape, 1)] if channel is not None else ())


# --- reductions and windows ----------------------------------------------------------------------------------

REDUCTIONS = frozenset(
    ["mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "var_mean", "std_mean", "max", "min", "logsumexp", "nansum"]
)
SHAPE_KEEPING = frozenset(["softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum"])
WINDOWS = {
    "avg_pool": 0, "max_pool": 0, "adaptive_avg_pool": 0, "adaptive_max_pool": 0, "upsample": 0,
    "_upsample": 0, "lp_pool": 0,
}  # fmt: skip


def _reduction(ctx: Context, node: fx.Node) -> Result:
    args = bound(node)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    x = ctx.get(source)
    rank = len(x.shape)
    dims = _positive(args.get("dim"), rank)
    keepdim = bool(args.get("keepdim"))
    val = node.meta.get("val")
    shape = tuple((val[0] if isinstance(val, list | tuple) else val).shape)  # type: ignore[union-attr,index]
    planes = []
    for p in x.planes:
        vary = varying(p)
        inner = [d for d in vary if d in dims]
        if inner and len(inner) == len(vary):
            ctx.shrinking.append(node)
            ctx.reads.append(core(p).reshape(-1))
            continue
        p = reduce_over(ctx.labels, p, inner, node.name) if inner else p
        for d in sorted(dims, reverse=True):
            p = p.narrow(d, 0, 1) if keepdim else p.select(d, 0)
        planes.append(p)
    result = value(shape, planes)
    return tuple(result for _ in val) if isinstance(val, list | tuple) else result


def _shape_keeping(ctx: Context, node: fx.Node) -> Result:
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


def _window(ctx: Context, node: fx.Node) -> Result:
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


# --- the rest ------------------------------------------------------------------------------------------------


def _getitem(ctx: Context, node: fx.Node) -> Result:
    source, index = node.args[0], node.args[1]
    found = ctx.env.get(source)  # type: ignore[arg-type]
    if isinstance(found, tuple) and isinstance(index, int):
        return found[index]
    return Value(shape_of(node))


def _unknown(ctx: Context, node: fx.Node) -> Result:
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


Rule = Callable[[Context, fx.Node], Result]

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(LITERAL, _literal),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(SHAPE_KEEPING, _shape_keeping),
    "pad": _pad,
    "constant_pad_nd": _pad,
    "cat": _cat,
    "concat": _cat,
    "stack": _cat,
    "prelu": _prelu,
    **{f"conv{n}d": _conv for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _conv for n in (1, 2, 3)},
    "convolution": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "instance_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "getitem": _getitem,
}


def rule_for(node: fx.Node, rules: Mapping[str, Rule] = RULES) -> Rule:
    """The rule of a node: by name, by PyTorch's element-by-element tag, else the freezing one."""
    name = packet(node)
    if name in rules:
        return rules[name]
    if any(name.startswith(window) for window in WINDOWS):
        return _window
    return _pointwise if is_pointwise(node) else _unknown
