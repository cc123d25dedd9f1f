"""Data movement: run literally on the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..labels import Plane, along, core, shrink, spread, varying
from ..values import Value, literal_planes, merge, value
from .context import Context, Result, bound, packet, shape_of

LITERAL = frozenset(
    [
        "view",
        "reshape",
        "_unsafe_view",
        "view_as",
        "reshape_as",
        "permute",
        "transpose",
        "t",
        "numpy_T",
        "swapaxes",
        "swapdims",
        "movedim",
        "moveaxis",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "broadcast_to",
        "repeat",
        "tile",
        "repeat_interleave",
        "slice",
        "select",
        "narrow",
        "index_select",
        "index",
        "flip",
        "roll",
        "flatten",
        "unflatten",
        "unfold",
        "im2col",
        "unbind",
        "split",
        "split_with_sizes",
        "chunk",
        "tensor_split",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "diagonal",
        "rot90",
        "ravel",
        "hsplit",
        "vsplit",
        "atleast_2d",
        "take_along_dim",
        "gather",
        "contiguous",
        "adjoint",
        "mT",
    ]
)
SPLITS = frozenset(["split", "split_with_sizes", "chunk", "tensor_split", "unbind"])


def literal_rule(ctx: Context, node: fx.Node) -> Result:
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
    pieces = tuple(value(tuple(t.shape), planes[i] if planes else ()) for i, t in enumerate(list(val or ())))
    if packet(node) in SPLITS and len({p.shape for p in pieces}) == 1 and planes:
        _tie_equal_pieces(ctx, node, v, planes)
    return pieces


def _tie_equal_pieces(ctx: Context, node: fx.Node, v: Value, planes: list[list[Plane]]) -> None:
    """Tie equal pieces: code that cuts in equal parts cuts elsewhere when they shrink unequally."""
    dim = int(bound(node).get("dim") or 0) % len(v.shape)
    for i, p in enumerate(v.planes):
        if dim in varying(p):
            for piece in planes[1:]:
                ctx.labels.tie(planes[0][i], piece[i], node.name)


def pad_rule(ctx: Context, node: fx.Node) -> Result:
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


def growing_pad_rule(ctx: Context, node: fx.Node) -> Result:
    """Padding whose constant channels may become more: they get labels of their own.

    What they are added to can then be repeated with them, as long as the numbers in the code change too
    (:func:`gracile.surgery.widen`); :func:`pad_rule` says that it stays.
    """
    padded, pads, planes = pad_rule(ctx, node), list(bound(node)["pad"]), []
    assert isinstance(padded, Value)
    for p in padded.planes:
        axis = varying(p)[0] if len(varying(p)) == 1 else -1
        at = 2 * (len(padded.shape) - 1 - axis)
        if axis >= 0 and at < len(pads) and (pads[at] or pads[at + 1]):
            vector, size = along(p, axis).clone(), padded.shape[axis]
            place = torch.arange(size)
            constant = (place < pads[at]) | (place >= size - pads[at + 1])
            vector[constant] = ctx.labels.fresh(int(constant.sum()))
            p = spread(vector, padded.shape, axis)
        planes.append(p)
    return value(padded.shape, planes)


def cat_rule(ctx: Context, node: fx.Node) -> Result:
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


def getitem_rule(ctx: Context, node: fx.Node) -> Result:
    source, index = node.args[0], node.args[1]
    found = ctx.env.get(source)  # type: ignore[arg-type]
    if isinstance(found, tuple) and isinstance(index, int):
        return found[index]
    return Value(shape_of(node))
