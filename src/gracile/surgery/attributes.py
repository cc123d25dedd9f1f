"""Numbers that the user's code keeps beside its parameters: heads, split sizes, widths.

A plan made on the graph says what shape every tensor will have. Where an operation was captured with a
number that must change (a reshape to so many heads, a split into so many channels), the module that ran it
is searched for an attribute with the old number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import fx, nn

from gracile.graph import Captured
from gracile.graph.rules import bound, packet
from gracile.records import AttributeEdit

Number = int | tuple[int, ...]
STANDARD = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


class Shapes(Protocol):
    """What a change of channels does to a graph's shapes; a ``Provenance`` says it of removals."""

    @property
    def captured(self) -> Captured:
        """The graph before the change."""

    def kept(self, node: str, gone: np.ndarray) -> dict[int, np.ndarray]:
        """Per axis of the node's output that changes: the old index of each entry."""


@dataclass(frozen=True)
class Change:
    """``module`` ran an operation with ``old`` that needs ``new``."""

    module: str
    old: Number
    new: Number


def changes(provenance: Shapes, gone: np.ndarray) -> tuple[Change, ...]:
    """Numbers in the captured operations that a removal changes, each once."""
    found: dict[Change, None] = {}
    for node in provenance.captured.graph.nodes:
        if node.op == "call_function":
            for old, new in _numbers(provenance, gone, node):
                if old != new:
                    found[Change(provenance.captured.module_of(node), old, new)] = None
    return tuple(found)


def _size(provenance: Shapes, gone: np.ndarray, node: fx.Node, axis: int) -> int:
    kept = provenance.kept(node.name, gone)
    val = node.meta["val"]
    return int(kept[axis].size) if axis in kept else int(val.shape[axis])


def _numbers(provenance: Shapes, gone: np.ndarray, node: fx.Node) -> Iterator[tuple[Number, Number]]:
    """(captured number, number it must become) for every whole number that shapes a node."""
    name = packet(node)
    if name in ("view", "reshape", "_unsafe_view", "expand"):
        sizes = bound(node).get("size") or bound(node).get("shape") or ()
        whole = [_size(provenance, gone, node, axis) for axis in range(len(sizes))]
        for size, wanted in zip(sizes, whole, strict=True):
            if isinstance(size, int) and size > 1:
                yield size, wanted
        fixed = [n if isinstance(s, int) and s > 1 else s for s, n in zip(sizes, whole, strict=True)]
        yield tuple(sizes), tuple(fixed)
    elif name == "unflatten":
        args = bound(node)
        dim = int(args["dim"]) % len(args["self"].meta["val"].shape)
        for i, old in enumerate(args["sizes"]):
            if old > 1:
                yield old, _size(provenance, gone, node, dim + i)
    elif name in ("split", "split_with_sizes", "tensor_split"):
        yield from _split_numbers(provenance, gone, node)
    elif name in ("slice", "narrow"):
        yield from _slice_numbers(provenance, gone, node)
    elif name in ("pad", "constant_pad_nd"):
        yield from _pad_numbers(provenance, gone, node)
    elif name == "layer_norm":
        x, shape = node.args[0], tuple(bound(node)["normalized_shape"])
        assert isinstance(x, fx.Node)
        rank = len(x.meta["val"].shape)
        new = tuple(_size(provenance, gone, x, rank - len(shape) + i) for i in range(len(shape)))
        yield shape, new
        if len(shape) == 1:
            yield shape[0], new[0]
    elif name == "group_norm":
        x, groups = node.args[0], int(bound(node)["num_groups"])
        assert isinstance(x, fx.Node)
        channels = int(x.meta["val"].shape[1])
        if groups > 1:
            yield groups, _size(provenance, gone, x, 1) * groups // channels


def _pad_numbers(provenance: Shapes, gone: np.ndarray, node: fx.Node) -> Iterator[tuple[Number, Number]]:
    """How many entries are added before and behind an axis; only copies change them."""
    pads, kept = list(bound(node)["pad"]), provenance.kept(node.name, gone)
    rank = len(node.meta["val"].shape)
    for i in range(0, len(pads), 2):
        axis = rank - 1 - i // 2
        if axis in kept and min(pads[i], pads[i + 1]) >= 0:
            end = int(node.meta["val"].shape[axis]) - pads[i + 1]
            yield pads[i], int((kept[axis] < pads[i]).sum())
            yield pads[i + 1], int((kept[axis] >= end).sum())


def _split_numbers(provenance: Shapes, gone: np.ndarray, node: fx.Node) -> Iterator[tuple[Number, Number]]:
    args = bound(node)
    dim = int(args.get("dim") or 0)
    pieces = {int(u.args[1]): u for u in node.users if packet(u) == "getitem"}  # type: ignore[arg-type]
    old = [int(t.shape[dim]) for t in node.meta["val"]]
    new = [
        _size(provenance, gone, pieces[i], dim % pieces[i].meta["val"].dim()) if i in pieces else size
        for i, size in enumerate(old)
    ]
    asked = args.get("split_size", args.get("split_sizes"))
    if isinstance(asked, int):
        yield asked, new[0]
        yield sum(old), sum(new)  # code that splits a width kept as one number into so many parts
    yield tuple(old), tuple(new)


def _slice_numbers(provenance: Shapes, gone: np.ndarray, node: fx.Node) -> Iterator[tuple[Number, Number]]:
    args = bound(node)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    dim = int(args.get("dim") or 0) % len(source.meta["val"].shape)
    kept = provenance.kept(source.name, gone).get(dim)
    size = int(source.meta["val"].shape[dim])
    for bound_name in ("start", "end"):
        at = args.get(bound_name)
        if isinstance(at, int) and 0 < at < size and kept is not None:
            yield at, int((kept < at).sum())


def candidates(model: nn.Module, change: Change) -> list[tuple[str, str]]:
    """(module, attribute) pairs that hold the old number, in the module that ran it or its parent."""
    path = change.module
    for _ in range(2):
        try:
            module = model.get_submodule(path)
        except AttributeError:
            module = None
        if module is not None and not isinstance(module, STANDARD):
            held = [
                (path, name)
                for name, found in vars(module).items()
                if not name.startswith("_") and _same(found, change.old)
            ]
            if held:
                return held
        if not path.rpartition(".")[0]:
            break
        path = path.rpartition(".")[0]
    return []


def _same(found: object, old: Number) -> bool:
    if isinstance(old, int):
        return type(found) is int and found == old
    return isinstance(found, list | tuple) and len(found) == len(old) and tuple(found) == old


def edits(
    model: nn.Module, provenance: Shapes, gone: np.ndarray, choice: dict[str, int] | None = None
) -> tuple[AttributeEdit, ...]:
    """Attribute edits that follow from a removal.

    Where several attributes of a module hold the same old number, all are set by default; ``choice`` maps a
    class name to another option: the k-th of the candidates alone.
    """
    choice = choice or {}
    found: dict[tuple[str, str], AttributeEdit] = {}
    for change in changes(provenance, gone):
        held = candidates(model, change)
        if held:
            kind = type(model.get_submodule(held[0][0])).__qualname__
            option = choice.get(kind, 0)
            held = held if option == 0 or len(held) == 1 else [held[(option - 1) % len(held)]]
        for path, name in held:
            found.setdefault(
                (path, name), AttributeEdit(module=path, attribute=name, old=change.old, new=change.new)
            )
    return tuple(found.values())
