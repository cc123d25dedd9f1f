"""Layers of a captured graph that a least-squares fit can set anew, and the sums that they end in.

A residual block computes ``sum = norm(conv(x)) + other``. What matters downstream is the sum, so errors are
weighed there, and a fit may correct in ``conv`` what went wrong in ``other``. Parts that Gracile hung on the
model (:mod:`gracile.nn.attach`) are looked through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor, fx

from gracile.graph import Captured
from gracile.graph.rules import bound, packet, shape_of
from gracile.nn import BorderMap, GatherChannels, MaskChannels, ScatterChannels
from gracile.observe.gram import patches, rows_of

CONVOLUTIONS = {f"conv{n}d": n for n in (1, 2, 3)}
TRANSPOSED = {f"conv_transpose{n}d": n for n in (1, 2, 3)}
Kind = Literal["conv", "linear", "grouped", "transposed"]
KINDS: tuple[Kind, ...] = ("conv", "linear", "grouped", "transposed")
LEAST_ROWS = 1 << 14
ROWS_PER_COLUMN = 128  # a fit of c columns on r rows has about c / r more error than one on endless rows
MAX_COLUMNS = 4608  # 512 channels x 9 taps: 170 MB of second moments in float64
_SAME = frozenset(["dropout", "alias", "contiguous", "clone", "detach", "feature_dropout"])


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a convolution goes over space."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    more: tuple[int, ...] = ()
    """Output padding of a transposed convolution, which has an entry for each axis; else empty."""


@dataclass(frozen=True, kw_only=True)
class Tail:
    """What follows a layer: a batch norm, a border map, a scatter, an addition.

    ``border`` is the map that is added, ``table`` the name of a scatter's table, ``total`` the addition and
    ``other`` what is added there.
    """

    norm: fx.Node | None = None
    border: fx.Node | None = None
    table: str | None = None
    total: fx.Node | None = None
    other: fx.Node | None = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or linear layer whose parameters serve one operation.

    ``weight``, ``bias``, ``mean`` (of the batch norm right behind it) and ``table`` (of a scatter) are names
    in the state; ``node``, ``norm`` and ``total`` (the addition behind it) are operations of the graph,
    ``other`` what is added there, ``border`` a map added before.
    """

    node: fx.Node
    name: str
    weight: str
    bias: str | None
    window: Window | None
    groups: int = 1
    norm: fx.Node | None = None
    mean: str | None = None
    border: fx.Node | None = None
    table: str | None = None
    total: fx.Node | None = None
    other: fx.Node | None = None

    @property
    def source(self) -> fx.Node:
        """The operation that it reads."""
        found: fx.Node = bound(self.node)["input"]
        return found

    @property
    def end(self) -> fx.Node:
        """Last operation of the affine tail: the sum, the norm or the layer itself."""
        return self.total or self.norm or self.node

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.window is not None and bool(self.window.more)

    @property
    def columns(self) -> int:
        """Inputs of one group, times taps."""
        shape = shape_of(bound(self.node)["weight"])
        if self.transposed:
            return shape[0] // self.groups * prod(shape[2:])
        return prod(shape[1:])

    @property
    def channels(self) -> int:
        """Input channels."""
        return int(shape_of(self.source)[1 if self.window is not None else -1])

    def matrices(self, weight: Tensor) -> Tensor:
        """The weight as one matrix a group, ``(groups, outputs of a group, columns)``."""
        if not self.transposed:
            return weight.reshape(self.groups, -1, self.columns)
        apart = weight.reshape(self.groups, -1, *weight.shape[1:]).transpose(1, 2)  # (groups, out, in, *taps)
        return apart.flip(tuple(range(3, apart.dim()))).flatten(2)

    def weight_of(self, matrices: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`matrices`: a weight of the shape of ``like``."""
        if not self.transposed:
            return matrices.reshape(like.shape)
        apart = matrices.reshape(*matrices.shape[:2], -1, *like.shape[2:])
        return apart.flip(tuple(range(3, apart.dim()))).transpose(1, 2).reshape(like.shape)

    def inputs(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Input activations as rows ``(positions, groups * columns)``; ``at`` picks output positions."""
        if self.window is None:
            return x.reshape(-1, x.shape[-1])
        w = self.window
        if not w.more:
            return patches(x, w.kernel, stride=w.stride, padding=w.padding, dilation=w.dilation, at=at)
        ones = (1,) * len(w.kernel)
        return patches(_spread(x, w), w.kernel, stride=ones, padding=(0,) * len(ones), dilation=w.dilation,
                       at=at)  # fmt: skip

    def outputs(self, y: Tensor, at: Tensor | None = None) -> Tensor:
        """Output activations (of the layer, its norm or its sum) as rows ``(positions, outputs)``."""
        return y.reshape(-1, y.shape[-1]) if self.window is None else rows_of(y, at)

    def positions(self, images: int, generator: torch.Generator) -> Tensor | None:
        """Random output positions of a convolution: ``ROWS_PER_COLUMN`` rows a column from all images."""
        if self.window is None:
            return None
        every = int(torch.Size(shape_of(self.node)[2:]).numel())
        wanted = -(-max(LEAST_ROWS, ROWS_PER_COLUMN * self.columns) // images)
        return torch.randperm(every, generator=generator)[:wanted] if wanted < every else None


def _spread(x: Tensor, w: Window) -> Tensor:
    """The input of a transposed convolution with zeros between, so that a plain one gives the same."""
    rank = len(w.kernel)
    wide = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], w.stride, strict=True)))
    wide[(slice(None), slice(None), *(slice(None, None, s) for s in w.stride))] = x
    pads = []
    for i in reversed(range(rank)):
        side = w.dilation[i] * (w.kernel[i] - 1) - w.padding[i]
        pads += [side, side + w.more[i]]
    return torch.nn.functional.pad(wide, pads)


def find_layers(captured: Captured, kinds: Collection[Kind] = ("conv", "linear")) -> dict[str, Layer]:
    """Layers that can be fitted, by the name of their operation, in the order of the graph.

    Args:
        captured: The model.
        kinds: Of ``conv``, ``linear``, ``grouped`` and ``transposed``.

    Example:
        >>> from torch import nn
        >>> from gracile.graph import capture
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, groups=2))
        >>> captured = capture(net, (torch.zeros(1, 1, 8, 8),))
        >>> [(x.name, x.mean) for x in find_layers(captured).values()]
        [('0', '1.running_mean')]
        >>> [x.name for x in find_layers(captured, KINDS).values()]
        ['0', '2']
    """
    found: dict[str, Layer] = {}
    for node in captured.graph.nodes:
        layer = _layer(captured, node) if node.op == "call_function" and _kind(node) in kinds else None
        if layer is not None:
            found[node.name] = layer
    return found


def _kind(node: fx.Node) -> str:
    """Which of ``KINDS`` an operation is, "" for none."""
    name = packet(node)
    if name == "linear":
        return "linear"
    if name in TRANSPOSED:
        groups, shape = int(bound(node)["groups"]), shape_of(bound(node)["weight"])
        return "transposed" if groups == 1 or (shape[1] == 1 and groups == shape[0]) else ""
    if name in CONVOLUTIONS:
        return "grouped" if int(bound(node)["groups"]) > 1 else "conv"
    return ""


def _layer(captured: Captured, node: fx.Node) -> Layer | None:
    name = packet(node)
    args = bound(node)
    weight = own(captured, args["weight"])
    bias = own(captured, args["bias"])
    if weight is None or (args["bias"] is not None and bias is None):
        return None
    window = None
    if name != "linear":
        rank = (CONVOLUTIONS | TRANSPOSED)[name]
        if isinstance(args["padding"], str) or len(shape_of(args["input"])) != rank + 2:
            return None
        window = Window(
            kernel=shape_of(args["weight"])[2:],
            stride=_each(args["stride"], rank),
            padding=_each(args["padding"], rank),
            dilation=_each(args["dilation"], rank),
            more=_each(args["output_padding"], rank) if name in TRANSPOSED else (),
        )
    tail = _tail(captured, node)
    mean = own(captured, bound(tail.norm)["running_mean"]) if tail.norm is not None else None
    return Layer(node=node, name=weight.rpartition(".")[0], weight=weight, bias=bias, window=window,
                 groups=int(args.get("groups") or 1), mean=mean, norm=tail.norm, border=tail.border,
                 table=tail.table, total=tail.total, other=tail.other)  # fmt: skip


def _each(value: int | list[int], rank: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def own(captured: Captured, node: fx.Node | None) -> str | None:
    """Name of the parameter or buffer behind a placeholder that serves one operation only."""
    if not isinstance(node, fx.Node) or node.op != "placeholder" or len(node.users) != 1:
        return None
    return captured.param_of(node)


def is_weighted(node: fx.Node) -> bool:
    """Whether the operation is a convolution, transposed or not, or a linear layer."""
    return node.op == "call_function" and (packet(node) == "linear" or packet(node).startswith("conv"))


def is_norm(node: fx.Node) -> bool:
    """Whether the operation is a batch norm with running statistics."""
    return (
        node.op == "call_function"
        and packet(node) == "batch_norm"
        and not bound(node)["training"]
        and bound(node)["running_mean"] is not None
    )


def only_user(node: fx.Node) -> fx.Node | None:
    """The one operation that takes in ``node``; operations that pass it on unchanged are looked through."""
    while len(node.users) == 1:
        user: fx.Node = next(iter(node.users))
        if user.op != "call_function":
            return None
        if packet(user) not in _SAME or (packet(user) == "dropout" and bound(user)["train"]):
            return user
        node = user
    return None


def part_of(node: fx.Node) -> str:
    """Name of the class when an operation ran in a part that Gracile hung on the model, else ""."""
    stack = node.meta.get("nn_module_stack") or {}
    kind = list(stack.values())[-1][1] if stack else ""
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return _PARTS.get(name, "")


_PARTS = {
    f"{c.__module__}.{c.__qualname__}": c.__name__
    for c in (BorderMap, GatherChannels, MaskChannels, ScatterChannels)
}


def _tail(captured: Captured, node: fx.Node) -> Tail:
    """What follows a layer, up to the addition that it ends in."""
    tail, at, user = Tail(), node, only_user(node)
    while user is not None:
        part = part_of(user)
        if is_norm(user) and tail == Tail():
            tail = replace(tail, norm=user)
        elif part == "BorderMap" and packet(user) == "add":
            tail = replace(tail, border=next(a for a in user.all_input_nodes if a not in _chain(at, user)))
        elif part == "ScatterChannels" and packet(user) == "index_select":
            tail = replace(tail, table=captured.param_of(user.all_input_nodes[1]))
        elif part not in ("ScatterChannels", "MaskChannels"):
            break
        at, user = user, only_user(user)
    if user is None or packet(user) != "add" or user.kwargs.get("alpha", 1) != 1:
        return tail
    operands = [a for a in user.args[:2] if isinstance(a, fx.Node)]
    if len(operands) != 2 or any(shape_of(a) != shape_of(at) for a in operands):
        return tail
    inside = [a for a in operands if a is at or at in _passed(a)]
    if len(inside) != 1:
        return tail
    return replace(tail, total=user, other=operands[1] if inside[0] is operands[0] else operands[0])


def _chain(node: fx.Node, user: fx.Node) -> set[fx.Node]:
    """``node`` and what hands it on unchanged to ``user``."""
    return {a for a in user.all_input_nodes if a is node or node in _passed(a)}


def _passed(node: fx.Node) -> list[fx.Node]:
    """What ``node`` hands on unchanged, nearest first."""
    found = []
    while node.op == "call_function" and packet(node) in _SAME:
        node = node.all_input_nodes[0]
        found.append(node)
    return found


def affine(captured: Captured, norm: fx.Node, held: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation, ``y = scale * x + shift``, each ``(channels,)``.

    Args:
        captured: The graph that ``norm`` is in.
        norm: A batch norm, see :func:`is_norm`.
        held: Parameters and buffers by name.
    """
    args = bound(norm)

    def tensor(node: fx.Node | None, default: float, like: Tensor | None) -> Tensor:
        if node is None:
            assert like is not None
            return torch.full_like(like, default)
        name = captured.param_of(node)
        assert name is not None
        return held[name].detach()

    mean = tensor(args["running_mean"], 0.0, None)
    var = tensor(args["running_var"], 1.0, mean)
    scale = tensor(args["weight"], 1.0, mean) / torch.sqrt(var + args["eps"])
    return scale, tensor(args["bias"], 0.0, mean) - mean * scale
