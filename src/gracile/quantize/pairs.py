"""Layers whose channels can be scaled against the layers that read them, without changing the network.

``f(s x) = s f(x)`` for ``s > 0`` holds for ReLU, leaky ReLU, max and average pooling, padding with zeros and
resizing (Nagel et al., arXiv 1906.04721, section 4.1, equations 5 to 7). Between two such layers channel
``i`` can be divided by ``s_i`` before and multiplied by it behind. Where something else lies between, the
reason is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gracile.nn import SpatialMean
from gracile.records import ChannelScaling, Skipped

from .lower import argument, fetch, op_name, value_of
from .units import Layer, Units

_HOMOGENEOUS = frozenset(
    {
        *("relu", "leaky_relu", "prelu"),
        *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)),
        *("upsample_nearest2d", "upsample_bilinear2d"),
    }
)

NO_MODULE = "its weights are not those of a module"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``first`` writes channels that only ``readers`` read, through ``between`` in graph order."""

    first: Layer
    readers: tuple[Layer, ...]
    between: tuple[fx.Node, ...]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What was found: pairs in graph order, and layers that are in none as first."""

    found: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


def find_pairs(units: Units) -> Pairs:
    """Every layer of ``units`` whose output only goes through homogeneous operations into other layers."""
    names = [layer.name for layer in units.layers]
    by_node = {layer.node: layer for layer in units.layers}
    found, skipped = [], []
    for layer in units.layers:
        if names.count(layer.name) > 1 or len(layer.weight.users) > 1:
            skipped.append(Skipped(layer.name, "it runs more than once"))
            continue
        if not layer.is_module:
            skipped.append(Skipped(layer.name, NO_MODULE))
            continue
        result = _follow(layer, by_node, names)
        if isinstance(result, Pair):
            found.append(result)
        else:
            skipped.append(Skipped(layer.name, result))
    return Pairs(found=tuple(found), skipped=tuple(skipped))


def _follow(layer: Layer, by_node: dict[fx.Node, Layer], names: list[str]) -> Pair | str:
    """The pair that ``layer`` begins, or why there is none."""
    readers, between, todo = [], [], [layer.node]
    while todo:
        node = todo.pop(0)
        for user in node.users:
            reader = by_node.get(user)
            if reader is not None:
                if names.count(reader.name) > 1 or len(reader.weight.users) > 1:
                    return f"{reader.name} reads it and runs more than once"
                if not reader.is_module:
                    return f"{reader.name} reads it: {NO_MODULE}"
                readers.append(reader)
            elif why := _obstacle(user):
                return why
            elif user not in between:
                between.append(user)
                todo.append(user)
    order = {node: i for i, node in enumerate(layer.node.graph.nodes)}
    return Pair(
        first=layer,
        readers=tuple(sorted(readers, key=lambda r: order[r.node])),
        between=tuple(sorted(between, key=order.__getitem__)),
    )


def _obstacle(node: fx.Node) -> str:
    """Why channels cannot be scaled through ``node``, "" where they can."""
    if node.op == "output":
        return "its output is the model's"
    if node.op == "call_module":
        module = node.graph.owning_module
        own = module.get_submodule(str(node.target)) if module is not None else None
        return "" if isinstance(own, SpatialMean) else f"its output goes into {node.target}"
    name = op_name(node)
    if name in _HOMOGENEOUS or _spatial(node, name):
        return ""
    if name in ("relu6", "hardtanh", "clamp", "clamp_min"):
        return f"its output goes through {name}, whose bounds would have to be scaled channel by channel"
    if name in ("add", "cat"):
        return f"its output meets others in {name}"
    return f"its output goes into {name or node.op}"


def _spatial(node: fx.Node, name: str) -> bool:
    """A move that leaves channels on axis 1 whole and in order."""
    before, after = (value_of(n) if isinstance(n, fx.Node) else None for n in (node.args[0], node))
    if before is None or after is None:
        return False
    if name == "flatten" or name in ("view", "reshape"):
        merged = before.dim() > 2 and after.dim() == 2 and before.shape[0] == after.shape[0]
        return merged and isinstance(after.shape[1], int)
    if name in ("pad", "constant_pad_nd"):
        sizes = node.args[1]
        assert isinstance(sizes, list | tuple)
        constant = name == "constant_pad_nd" or argument(node, "mode", "constant") == "constant"
        return constant and not argument(node, "value", 0) and len(sizes) <= 2 * (before.dim() - 2)
    if name == "slice":
        return int(argument(node, "dim", 0)) % before.dim() >= 2
    return False


@torch.no_grad()
def scale_(model: nn.Module, scaling: ChannelScaling) -> None:
    """Carry out a scaling on any module with parameters of those names, in place.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> scale_(net, ChannelScaling(first="0", readers=("2",), scale=(2.0, 1.0)))
        >>> x = torch.ones(1, 1)
        >>> halved = net[0].weight[0, 0] * 2
    """
    scale = torch.tensor(scaling.scale, dtype=torch.float64)
    for name in (f"{scaling.first}.weight", f"{scaling.first}.bias"):
        part = parameter(model, name)
        if part is not None:
            part.copy_(part.double() / scale.to(part.device).reshape(-1, *[1] * (part.dim() - 1)))
    for reader in scaling.readers:
        weight = parameter(model, f"{reader}.weight")
        assert weight is not None
        weight.copy_(weight.double() * columns(scale.to(weight.device), weight))


def columns(values: Tensor, weight: Tensor) -> Tensor:
    """One value for each input channel in a shape that multiplies the weight that reads them.

    Args:
        values: ``(channels,)``.
        weight: ``(out, channels / groups, ...)``, or of a linear layer behind a flatten
            ``(out, channels * positions)``.
    """
    if weight.dim() == 2:
        return values.repeat_interleave(weight.shape[1] // len(values)).reshape(1, -1)
    groups = len(values) // weight.shape[1]
    per_group = values.reshape(groups, 1, weight.shape[1])
    rows = per_group.expand(groups, weight.shape[0] // groups, weight.shape[1])
    return rows.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))


def per_input(weight: Tensor, channels: int) -> Tensor:
    """Largest absolute weight that each of ``channels`` input channels meets."""
    size = weight.detach().abs()
    if weight.dim() == 2:
        return size.reshape(len(size), channels, -1).amax((0, 2))
    groups = channels // weight.shape[1]
    grouped = size.reshape(groups, len(size) // groups, weight.shape[1], -1)
    return grouped.amax((1, 3)).reshape(-1)


def parameter(model: nn.Module, name: str) -> Tensor | None:
    """The parameter with a dotted name, ``None`` where there is none."""
    owner, _, last = name.rpartition(".")
    value = getattr(model.get_submodule(owner), last, None)
    return value if isinstance(value, Tensor) else None


def weight_of(module: fx.GraphModule, layer: Layer) -> Tensor:
    """The float weight of a layer."""
    return fetch(module, str(layer.weight.target)).detach()
