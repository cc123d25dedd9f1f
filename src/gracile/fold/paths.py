"""How a scale and shift of each channel moves through the operations of a captured graph.

A *place* is a value and the axis that its channels run along. Two places are tied where an operation passes
a scale and a shift on: additions (the scale of both summands is that of the sum), concatenations and splits
(channel by channel), means, interpolation, and data movement. A tie ends at layers, which can take any scale
and shift in; everything else stops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from gracile.graph.rules import LITERAL, bound, packet, shape_of

Place = tuple[fx.Node, int]
Index = NDArray[Any]

IDLE = frozenset(
    ["dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "alias", "detach",
     "lift_fresh_copy", "identity"]
)  # fmt: skip
MAXIMA = ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool")
SPREADING = ("upsample_", "adaptive_avg_pool", "reflection_pad", "replication_pad")
SPLITS = frozenset(["split", "split_with_sizes", "chunk", "unbind", "tensor_split", "split_copy"])
LAYERS = frozenset(["linear", *(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3))])
_AS = frozenset(["view_as", "reshape_as", "expand_as"])
LARGEST = 2**25  # entries of a tensor that movement is tried on


@dataclass(frozen=True)
class Tie:
    """``here[i]`` of a place goes with ``there[i]`` of ``other``; the shift of ``out`` is ``factor`` times.

    ``positive``: only scales above zero pass.
    """

    other: Place
    here: Index
    there: Index
    positive: bool = False


@dataclass(frozen=True)
class Stop:
    """Why a scale and shift go no further, at which channels (all for ``None``)."""

    why: str
    here: Index | None = None


Step = Tie | Stop


def step(op: fx.Node, place: Place) -> list[Step]:
    """What an operation ties ``place`` to, one of its inputs or its output; no layer, no norm."""
    name = packet(op)
    if name in IDLE:
        return _each(op, place, 0)
    if name in ("add", "sub"):
        return _sum(op, place)
    if name in ("mul", "div", "neg"):
        return _times(op, place)
    if name in ("cat", "concat"):
        return _cat(op, place)
    if name == "mean":
        return _mean(op, place)
    if name.startswith(MAXIMA) and isinstance(op.meta.get("val"), Tensor):
        return _window(op, place, positive=True)
    if name.startswith(SPREADING) or _means(op):
        return _window(op, place)
    if name == "pad" and bound(op)["mode"] != "constant":
        return _window(op, place)
    if name in LITERAL or name == "getitem":
        return _moved(op, place)
    return [Stop(wording(op))]


def wording(op: fx.Node) -> str:
    """An operation in words."""
    if op.op == "output":
        return "the network's output"
    return packet(op) if op.op == "call_function" else "the network's input"


def users(node: fx.Node) -> list[fx.Node]:
    """What reads a value; of a split, what reads its parts."""
    found = []
    for user in node.users:
        split = user.op == "call_function" and packet(user) in SPLITS
        found += list(user.users) if split else [user]
    return found


def sources(op: fx.Node) -> list[fx.Node]:
    """Tensors that an operation of :func:`step` passes on."""
    first = op.args[0]
    if packet(op) == "getitem" and isinstance(first, fx.Node):
        first = first.args[0] if packet(first) in SPLITS else None
    nodes = list(first) if isinstance(first, list | tuple) else [first]
    if packet(op) in ("add", "sub"):
        nodes.append(op.args[1])
    return [n for n in nodes if isinstance(n, fx.Node)]


def shares_of(op: fx.Node, axis: int, given: dict[Place, Index]) -> Index | None:
    """Shift of each channel of an operation's output, from that of its inputs; ``None``: it varies.

    Args:
        op: The operation.
        axis: Of its output.
        given: Shifts of the places that come before; what is missing has none.
    """
    width = shape_of(op)[axis]
    found: Index = np.zeros(width)
    seen: Index = np.zeros(width, dtype=bool)
    adds = packet(op) in ("add", "sub")
    sign = 1.0
    for position, source in enumerate(sources(op)):
        sign = -1.0 if packet(op) == "sub" and position else 1.0
        factor = _factor(op) * sign
        for tie in [t for t in step(op, (op, axis)) if isinstance(t, Tie) and t.other[0] is source]:
            at: Any = tie.here
            value: Any = np.zeros(len(at))
            if tie.other in given:
                value = factor * given[tie.other][tie.there]
            if not adds and bool(np.any(seen[at] & (found[at] != value))):
                return None
            found[at] = found[at] + value if adds else value
            seen[at] = True
            break
    return found


def _factor(op: fx.Node) -> float:
    name, args = packet(op), op.args
    if name == "neg":
        return -1.0
    if name not in ("mul", "div"):
        return 1.0
    value = next(a for a in args if isinstance(a, int | float))
    return float(value) if name == "mul" else 1.0 / float(value)


def _all(place: Place) -> Index:
    return np.arange(shape_of(place[0])[place[1]])


def _straight(place: Place, other: Place, positive: bool = False) -> list[Step]:
    every = _all(place)
    if len(every) != shape_of(other[0])[other[1]]:
        return [Stop("a change of the number of channels")]
    return [Tie(other, every, every, positive)]


def _each(op: fx.Node, place: Place, argument: int) -> list[Step]:
    """An operation that keeps shape and channels."""
    source = op.args[argument]
    assert isinstance(source, fx.Node)
    return _straight(place, (source if place[0] is op else op, place[1]))


def _window(op: fx.Node, place: Place, positive: bool = False) -> list[Step]:
    """Windows over space: channels are axis 1."""
    source = op.args[0]
    assert isinstance(source, fx.Node)
    if place[1] != 1 or len(shape_of(op)) < 3:
        return [Stop(wording(op))]
    return _straight(place, (source if place[0] is op else op, 1), positive)


def _means(op: fx.Node) -> bool:
    """An average pool whose windows hold no zeros of padding."""
    if not packet(op).startswith("avg_pool"):
        return False
    args = bound(op)
    padding = args["padding"] if isinstance(args["padding"], list | tuple) else [args["padding"]]
    return args.get("divisor_override") is None and (not any(padding) or not args["count_include_pad"])


def _sum(op: fx.Node, place: Place) -> list[Step]:
    found: list[Step] = []
    operands = op.args[:2]
    if op.kwargs.get("alpha", 1) != 1 or not all(isinstance(a, fx.Node) for a in operands):
        return [Stop("a sum with a number")]
    rank = len(shape_of(op))
    from_end = place[1] - len(shape_of(place[0]))
    for other in (*operands, op):
        assert isinstance(other, fx.Node)
        if other is place[0]:
            continue
        axis = len(shape_of(other)) + from_end
        if axis < 0 or shape_of(other)[axis] != shape_of(place[0])[place[1]]:
            return [Stop("a sum that spreads one value over the channels")]
        found += _straight(place, (other, axis))
    if operands[0] is operands[1]:
        return [Stop("a sum of a value with itself")]
    return found if rank + from_end >= 0 else [Stop(wording(op))]


def _times(op: fx.Node, place: Place) -> list[Step]:
    """A product with one number that is written in the code."""
    numbers = [a for a in op.args if isinstance(a, int | float)]
    single = packet(op) == "neg" or (len(numbers) == 1 and numbers[0] != 0)
    if not single or not isinstance(op.args[0], fx.Node) or op.kwargs:
        return [Stop(wording(op))]
    return _each(op, place, 0)


def _cat(op: fx.Node, place: Place) -> list[Step]:
    parts: Any = op.args[0]
    axis = int(bound(op)["dim"]) % len(shape_of(op))
    if len(set(parts)) != len(parts):
        return [Stop("a concatenation of a value with itself")]
    if place[1] != axis:
        every = [op, *parts]
        return [s for other in every if other is not place[0] for s in _straight(place, (other, place[1]))]
    found: list[Step] = []
    start = 0
    for part in parts:
        width = shape_of(part)[axis]
        own, whole = np.arange(width), np.arange(start, start + width)
        if place[0] is op:
            found.append(Tie((part, axis), whole, own))
        elif part is place[0]:
            found.append(Tie((op, axis), own, whole))
        start += width
    return found


def _mean(op: fx.Node, place: Place) -> list[Step]:
    source, args = op.args[0], bound(op)
    assert isinstance(source, fx.Node)
    rank = len(shape_of(source))
    dims = args.get("dim")
    gone = set(range(rank)) if not dims else {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    kept = [a for a in range(rank) if args.get("keepdim") or a not in gone]
    if place[0] is op:
        axis = kept[place[1]]
        return [Stop("a mean over the channels")] if axis in gone else _straight(place, (source, axis))
    if place[1] in gone:
        return [Stop("a mean over the channels")]
    return _straight(place, (op, kept.index(place[1])))


def _moved(op: fx.Node, place: Place) -> list[Step]:
    """Data movement, run on the numbers of the channels."""
    feeding = sources(op)
    if len(feeding) != 1 or not isinstance(op.meta.get("val"), Tensor):
        return [Stop(wording(op))]
    source = feeding[0]
    if place[0] not in (source, op):
        return [] if packet(op) in _AS else [Stop(wording(op))]  # only its shape is read
    if place[0] is source:
        moved = _carried(op, source, place[1])
        return [Stop(wording(op))] if moved is None else [Tie((op, moved[0]), moved[1], _range(moved[1]))]
    for axis, size in enumerate(shape_of(source)):
        moved = _carried(op, source, axis) if size > 1 else None
        if moved is not None and moved[0] == place[1]:
            return [Tie((source, axis), _range(moved[1]), moved[1])]
    return [Stop(wording(op))]


def _range(index: Index) -> Index:
    return np.arange(len(index))


def _carried(op: fx.Node, source: fx.Node, axis: int) -> tuple[int, Index] | None:
    """The axis of the output that an axis of the input becomes, and the entry of each of its entries."""
    shape = shape_of(source)
    if int(np.prod(shape)) > LARGEST or shape[axis] < 2:
        return None
    rest = [-1 if d == axis else 1 for d in range(len(shape))]
    numbers = torch.arange(shape[axis]).view(rest).expand(shape)
    try:
        moved = _run(op, source, numbers)
    except (RuntimeError, TypeError):
        return None
    if not isinstance(moved, Tensor) or moved.shape != torch.Size(shape_of(op)):
        return None
    axes = [d for d in range(moved.dim()) if bool((moved != moved.narrow(d, 0, 1)).any())]
    if len(axes) != 1:
        return None
    line = moved[tuple(slice(None) if d == axes[0] else 0 for d in range(moved.dim()))]
    return axes[0], line.numpy()


def _run(op: fx.Node, source: fx.Node, numbers: Tensor) -> Any:
    """One operation, with the split before it, on other numbers."""
    first = op.args[0]
    if packet(op) == "getitem":
        assert isinstance(first, fx.Node)
        return _run(first, source, numbers)[op.args[1]]
    if packet(op) in _AS:
        like = numbers.new_empty(()).expand(shape_of(op))
        return op.target(numbers, like)  # type: ignore[operator]
    others = [a for a in (*op.args[1:], *op.kwargs.values()) if isinstance(a, fx.Node)]
    if others:
        raise TypeError(op.name)
    return op.target(numbers, *op.args[1:], **op.kwargs)  # type: ignore[operator]
