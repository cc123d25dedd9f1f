"""Layers of a captured graph that a least-squares fit can set anew, and the sums that they end in.

A residual block computes ``sum = norm(conv(x)) + other``. What matters downstream is the sum, so errors are
weighed there, and a fit may correct in ``conv`` what went wrong in ``other``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gracile.graph import Captured
from gracile.graph.rules import bound, packet, shape_of
from gracile.observe.gram import patches, rows_of

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
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


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An ungrouped convolution or linear layer whose parameters serve one operation.

    ``weight``, ``bias``, ``mean`` (of the batch norm right behind it) are names in the state; ``node``,
    ``norm`` and ``total`` (the addition behind it) are operations of the graph, ``other`` what is added
    there.
    """

    node: fx.Node
    name: str
    weight: str
    bias: str | None
    window: Window | None
    norm: fx.Node | None = None
    mean: str | None = None
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
    def columns(self) -> int:
        """Inputs times taps."""
        shape = shape_of(bound(self.node)["weight"])
        return int(torch.Size(shape[1:]).numel())

    def inputs(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Input activations as rows ``(positions, columns)``; ``at`` picks output positions."""
        if self.window is None:
            return x.reshape(-1, x.shape[-1])
        w = self.window
        return patches(x, w.kernel, stride=w.stride, padding=w.padding, dilation=w.dilation, at=at)

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


def find_layers(captured: Captured) -> dict[str, Layer]:
    """Layers that can be fitted, by the name of their operation, in the order of the graph.

    Example:
        >>> from gracile.graph import capture
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, groups=2))
        >>> [(x.name, x.mean) for x in find_layers(capture(net, (torch.zeros(1, 1, 8, 8),))).values()]
        [('0', '1.running_mean')]
    """
    found: dict[str, Layer] = {}
    for node in captured.graph.nodes:
        layer = _layer(captured, node) if node.op == "call_function" else None
        if layer is not None:
            found[node.name] = layer
    return found


def _layer(captured: Captured, node: fx.Node) -> Layer | None:
    name = packet(node)
    if name not in CONVOLUTIONS and name != "linear":
        return None
    args = bound(node)
    weight = own(captured, args["weight"])
    bias = own(captured, args["bias"])
    if weight is None or (args["bias"] is not None and bias is None):
        return None
    window = None
    if name != "linear":
        rank = CONVOLUTIONS[name]
        if args["groups"] != 1 or isinstance(args["padding"], str):
            return None
        if len(shape_of(args["input"])) != rank + 2:
            return None
        window = Window(
            kernel=shape_of(args["weight"])[2:],
            stride=_each(args["stride"], rank),
            padding=_each(args["padding"], rank),
            dilation=_each(args["dilation"], rank),
        )
    norm, total, other = _tail(node)
    mean = own(captured, bound(norm)["running_mean"]) if norm is not None else None
    return Layer(node=node, name=weight.rpartition(".")[0], weight=weight, bias=bias, window=window,
                 norm=norm, mean=mean, total=total, other=other)  # fmt: skip


def _each(value: int | list[int], rank: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def own(captured: Captured, node: fx.Node | None) -> str | None:
    """Name of the parameter or buffer behind a placeholder that serves one operation only."""
    if not isinstance(node, fx.Node) or node.op != "placeholder" or len(node.users) != 1:
        return None
    return captured.param_of(node)


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


def _tail(node: fx.Node) -> tuple[fx.Node | None, fx.Node | None, fx.Node | None]:
    """The batch norm and the addition behind a layer, and what is added."""
    norm, user = None, only_user(node)
    at = node
    if user is not None and is_norm(user):
        norm, at, user = user, user, only_user(user)
    if user is None or packet(user) != "add" or user.kwargs.get("alpha", 1) != 1:
        return norm, None, None
    operands = [a for a in user.args[:2] if isinstance(a, fx.Node)]
    if len(operands) != 2 or any(shape_of(a) != shape_of(node) for a in operands):
        return norm, None, None
    inside = [a for a in operands if a is at or at in _passed(a)]
    if len(inside) != 1:
        return norm, None, None
    other = operands[1] if inside[0] is operands[0] else operands[0]
    return norm, user, other


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


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )
