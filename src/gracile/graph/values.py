"""What the label interpreter knows of a value, and the general ways labels meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .labels import Labels, Plane, core, shrink, varying


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: its shape, the labels of its elements, and its numbers where they are known."""

    shape: tuple[int, ...]
    planes: tuple[Plane, ...] = ()
    concrete: Tensor | None = None


def value(shape: Sequence[int], planes: Sequence[Plane] = ()) -> Value:
    """A value with those planes that say anything (vary, and are not all zero)."""
    kept = [p for p in planes if varying(p)]
    return Value(tuple(shape), tuple(kept))


def lift(v: Value, rank: int) -> Value:
    """The value with leading axes of size one added, as broadcasting does."""
    extra = (1,) * (rank - len(v.shape))
    return Value(extra + v.shape, tuple(p.reshape(extra + tuple(p.shape)) if extra else p for p in v.planes))


def reduce_over(labels: Labels, plane: Plane, dims: Sequence[int], node: str) -> Plane:
    """Tie everything along ``dims``; the result is constant there (shape kept)."""
    small = plane
    for d in dims:
        if plane.size(d) > 1 and plane.stride(d) != 0:
            small = small.narrow(d, 0, 1)
    labels.tie(plane, small.expand(plane.shape), node)
    return small.expand(plane.shape)


def merge(labels: Labels, values: Sequence[Value], shape: Sequence[int], node: str) -> Value:
    """Element by element: what meets goes together.

    A plane that meets a full-sized operand without labels there is frozen; along axes where the other
    operand has size one it broadcasts and is carried over.
    """
    merged = _broadcast(lift(values[0], len(shape)), shape)
    sizes = lift(values[0], len(shape)).shape
    for other in values[1:]:
        lifted = lift(other, len(shape))
        merged = _merge_two(labels, merged, sizes, _broadcast(lifted, shape), lifted.shape, shape, node)
        sizes = tuple(max(a, b) for a, b in zip(sizes, lifted.shape, strict=True))
    return merged


def _broadcast(v: Value, shape: Sequence[int]) -> Value:
    return value(shape, [p.expand(tuple(shape)) for p in v.planes])


def _merge_two(
    labels: Labels,
    a: Value,
    a_sizes: Sequence[int],
    b: Value,
    b_sizes: Sequence[int],
    shape: Sequence[int],
    node: str,
) -> Value:
    left, right = list(a.planes), list(b.planes)
    result: list[Plane] = []
    for p in left:
        partners = [q for q in right if set(varying(p)) & set(varying(q))]
        if not partners and any(b_sizes[d] > 1 for d in varying(p)):
            labels.freeze(p, "meets values that stay (an input or a constant)", node)
        for q in partners:
            labels.tie(p, q, node)
        if partners:
            result.append(min([p, *partners], key=lambda r: core(r).numel()))
        else:
            result.append(p)
    for q in right:
        if not any(set(varying(q)) & set(varying(p)) for p in left):
            if any(a_sizes[d] > 1 for d in varying(q)):
                labels.freeze(q, "meets values that stay (an input or a constant)", node)
            result.append(q)
    unique: list[Plane] = []
    for r in result:
        if not any(r is u for u in unique):
            unique.append(r)
    return value(shape, unique)


def contract(
    labels: Labels,
    operands: Sequence[tuple[Value, str]],
    out: str,
    shape: Sequence[int],
    node: str,
) -> tuple[Value, bool]:
    """A product summed over the letters that ``out`` lacks, as in ``einsum``.

    Labels that vary only along summed letters are tied with their partner in the other operand; labels that
    vary along summed and kept letters are tied along the summed ones (whole heads go).

    Returns:
        The result, and whether a summed axis can lose entries (so that the sum changes).
    """
    summed: list[list[tuple[Plane, str]]] = []
    kept: list[Value] = []
    for operand, letters in operands:
        only: list[tuple[Plane, str]] = []
        planes: list[Plane] = []
        for p in operand.planes:
            vary = varying(p)
            inner = [d for d in vary if letters[d] not in out]
            if inner and len(inner) == len(vary):
                only.append((p, letters))
                continue
            planes.append(reduce_over(labels, p, inner, node) if inner else p)
        summed.append(only)
        kept.append(_align(Value(operand.shape, tuple(planes)), letters, out))
    narrowed = False
    for mine, theirs in ((0, 1), (1, 0)):
        for p, letters in summed[mine]:
            names = {letters[d] for d in varying(p)}
            partners = [(q, ls) for q, ls in summed[theirs] if {ls[d] for d in varying(q)} == names]
            if not partners:
                labels.freeze(p, "is summed against values that stay", node)
            for q, ls in partners:
                labels.tie(_only(p, letters), _only(q, ls), node)
                narrowed = True
    return merge(labels, kept, shape, node), narrowed


def _only(plane: Plane, letters: str) -> Tensor:
    """The varying axes of a plane, in the order of their letters."""
    vary = sorted(varying(plane), key=lambda d: letters[d])
    small = core(plane)
    return (
        small.permute(*vary, *[d for d in range(plane.dim()) if d not in vary]).flatten(len(vary)).squeeze(-1)
    )


def _align(v: Value, letters: str, out: str) -> Value:
    """Axes in the order of ``out``; letters that it lacks are narrowed away, missing ones get size one."""

    def move(t: Tensor) -> Tensor:
        for d in [i for i, c in enumerate(letters) if c not in out]:
            t = t.narrow(d, 0, 1)
        rest = [c for c in letters if c in out]
        t = t.reshape([t.size(i) for i, c in enumerate(letters) if c in out])
        order = sorted(range(len(rest)), key=lambda i: out.index(rest[i]))
        t = t.permute(order)
        for i, c in enumerate(out):
            if c not in rest:
                t = t.unsqueeze(i)
        return t

    probe = move(torch.zeros(()).expand(v.shape))
    return Value(tuple(probe.shape), tuple(move(p) for p in v.planes))


def literal_planes(v: Value, run: object, tuple_result: bool) -> list[list[Plane]]:
    """Run a data-movement operation on every plane; one list of planes per output."""
    outputs: list[list[Plane]] = []
    for p in v.planes:
        moved = run(p)  # type: ignore[operator]
        pieces = list(moved) if tuple_result else [moved]
        outputs = outputs or [[] for _ in pieces]
        for slot, piece in zip(outputs, pieces, strict=True):
            slot.append(shrink(piece))
    return outputs
