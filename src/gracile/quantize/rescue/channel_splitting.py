"""Outlier channel splitting: a channel whose range sets the step of all is read twice, each time by half.

Source: Zhao, Hu, Dotzel, De Sa and Zhang, "Improving neural network quantization without retraining using
outlier channel splitting", ICML 2019, arXiv 1901.09504, section 3. A share of the channels is split, each
time the one that holds the largest value. Of weights (section 3.1): an input channel is read twice by ``w /
2``, or quantization-aware (section 3.3) by ``(w - step / 2) / 2`` and ``(w + step / 2) / 2``, whose roundings
add up to that of ``w``. Of activations: a channel is written twice with half its value, and both are read by
``w``.

Where we differ: with one step per output channel, the input channel is split that holds the largest weight of
the most output channels. The halves of activations are plain, since a shift by a part of a step does not pass
a ReLU. Grouped convolutions are left alone, since their channels cannot be added singly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, fx

from gracile.errors import BadArgument
from gracile.records import ChannelSplit, Skipped

from ..graph_fold import set_bias_, set_parameter_
from ..lower import argument, fetch, op_name, value_of
from ..pairs import NO_MODULE, Pair, find_pairs, weight_of
from ..units import Layer, find_units
from .factorize import reach
from .work import Work

_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class SplitChannels:
    """Split the channels with the largest values.

    Args:
        share: Of a layer's channels, above 0, at most 1; at least one channel is split.
        of: "weights" or "activations".
        aware: Split weights so that both halves round to what the whole does.
    """

    share: float = 0.05
    of: Literal["weights", "activations"] = "weights"
    aware: bool = True
    exact = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise BadArgument("share", wanted="above 0, at most 1", found=f"{self.share=}")
        if self.of not in ("weights", "activations"):
            raise BadArgument("of", wanted="weights or activations", found=f"{self.of=}")

    def apply(self, work: Work) -> None:
        """Split channels in ``work`` and record which."""
        names = [layer.name for layer in work.units().layers]
        if self.of == "activations":
            self._activations(work)
            return
        for layer in work.units().layers:
            if why := _obstacle(layer, names):
                work.skipped.append(Skipped(layer.name, why))
                continue
            record = self._weights(work, layer)
            split_(work.graph, record)
            _keep(work, record)

    def _weights(self, work: Work, layer: Layer) -> ChannelSplit:
        """Which channels to split, greedily on halves; then the step that is left."""
        weight = weight_of(work.graph, layer).double()
        per_row = work.weight_axis is not None
        rows, channels = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None], []
        for _ in range(math.ceil(self.share * weight.shape[1])):
            size = rows.abs().amax(2)  # (out, in)
            largest = size.amax(1, keepdim=True)
            holds = ((size == largest) & (largest > 0)).double().sum(0) if per_row else size.amax(0)
            channel = int(holds.argmax())
            channels.append(channel)
            rows = torch.cat([rows, rows[:, channel : channel + 1] / 2], 1)
            rows[:, channel] /= 2
        steps: tuple[float, ...] = ()
        if self.aware:
            bits = work.bits[layer.name][0]
            axis = 0 if per_row else None
            found = work.weight_range(rows.float(), bits=bits, signed=True, symmetric=True, axis=axis)
            steps = tuple(found.scale.reshape(-1).tolist())
        return ChannelSplit(layer=layer.name, kind="weights", channels=tuple(channels), steps=steps)

    def _activations(self, work: Work) -> None:
        seen = work.extremes()
        for pair in find_pairs(work.units()).found:
            why = _pair_obstacle(pair)
            if why or pair.first.node not in seen:
                why = why or "nothing is known of its values"
                work.skipped.append(Skipped(pair.first.name, why))
                continue
            size, channels = reach(seen, pair), []
            for _ in range(math.ceil(self.share * len(size))):
                channels.append(int(size.argmax()))
                size[channels[-1]] /= 2
                size = torch.cat([size, size[channels[-1]].reshape(1)])
            for position, reader in enumerate(pair.readers):
                record = ChannelSplit(
                    layer=reader.name,
                    kind="activations",
                    channels=tuple(channels),
                    first=pair.first.name if position == 0 else "",
                )
                split_(work.graph, record)
                _keep(work, record)
            _halve_known(work, pair.first.node, channels)


def split_(graph: fx.GraphModule, record: ChannelSplit) -> None:
    """Carry out a split, in place."""
    layers = {layer.name: layer for layer in find_units(graph).layers}
    if record.first:
        _write_halves(graph, layers[record.first], record.channels)
    layer = layers[record.layer]
    weight = weight_of(graph, layer)
    if record.kind == "activations":
        wide = _copied(weight, record.channels, _channels_of(layer, weight))
        set_parameter_(graph, str(layer.weight.target), wide)
        return
    set_parameter_(graph, str(layer.weight.target), halves(weight, record.channels, record.steps))
    _read_twice(graph, layer, record.channels, weight.shape[1])


def halves(weight: Tensor, channels: tuple[int, ...], steps: tuple[float, ...]) -> Tensor:
    """Weights with input channels split one after the other; the copies come last.

    Args:
        weight: ``(out, in, ...)``.
        channels: Which input channel each new one copies; it may be an earlier copy.
        steps: Of the grid, one or one per output; empty for plain halves.

    Example:
        >>> halves(torch.tensor([[3.0, 1.0]]), (0,), (1.0,)).tolist()  # 3 = 1.25 + 1.75
        [[1.25, 1.0, 1.75]]
    """
    wide = weight.double()
    shift = torch.tensor(steps or (0.0,), dtype=torch.float64, device=weight.device)
    shift = shift.reshape(-1, *[1] * (weight.dim() - 2)) / 4
    for channel in channels:
        part = wide[:, channel]
        move = shift.expand_as(part) * (part != 0)  # a pruned weight stays zero
        wide = torch.cat([wide, (part / 2 + move)[:, None]], 1)
        wide[:, channel] = part / 2 - move
    return wide.to(weight.dtype)


def _read_twice(graph: fx.GraphModule, layer: Layer, channels: tuple[int, ...], count: int) -> None:
    """Let a layer read its input with channels repeated."""
    order = list(range(count))
    for channel in channels:
        order.append(order[channel])
    holder = f"{layer.name}.split_order"
    owner = graph.get_submodule(layer.name)
    where = weight_of(graph, layer).device
    owner.register_buffer("split_order", torch.tensor(order, device=where), persistent=True)
    source = layer.source
    with graph.graph.inserting_before(layer.node):
        index = graph.graph.get_attr(holder)
        picked = graph.graph.call_function(_aten.index_select.default, (source, 1, index))
    val = value_of(source)
    assert val is not None
    picked.meta = {key: v for key, v in source.meta.items() if key != "val"}
    picked.meta["val"] = torch.cat([val, *(val[:, order[c] : order[c] + 1] for c in channels)], 1)
    index.meta["val"] = torch.tensor(order)
    layer.node.replace_input_with(source, picked)


def _write_halves(graph: fx.GraphModule, first: Layer, channels: tuple[int, ...]) -> None:
    """Let a layer write half of some channels, twice."""
    weight, bias = weight_of(graph, first).double(), argument(first.node, "bias")
    old = weight.new_zeros(len(weight)) if bias is None else fetch(graph, str(bias.target)).double()
    for channel in channels:
        weight[channel], old[channel] = weight[channel] / 2, old[channel] / 2
        weight, old = torch.cat([weight, weight[channel][None]]), torch.cat([old, old[channel][None]])
    dtype = weight_of(graph, first).dtype
    set_parameter_(graph, str(first.weight.target), weight.to(dtype))
    if bias is not None:
        set_bias_(graph, first.node, old.to(dtype))


def _copied(weight: Tensor, channels: tuple[int, ...], count: int) -> Tensor:
    """Columns of split channels repeated at the end."""
    order = list(range(count))
    for channel in channels:
        order.append(order[channel])
    grouped = weight.reshape(weight.shape[0], count, -1)
    return grouped[:, order].reshape(weight.shape[0], -1, *weight.shape[2:])


def _channels_of(layer: Layer, weight: Tensor) -> int:
    """Channels before a flatten, where one lies between."""
    if weight.dim() > 2:
        return weight.shape[1]
    source = layer.source
    while op_name(source) == "flatten":
        before = source.args[0]
        assert isinstance(before, fx.Node)
        source = before
    value = value_of(source)
    return int(value.shape[1]) if value is not None else weight.shape[1]


def _halve_known(work: Work, node: fx.Node, channels: list[int]) -> None:
    if node.name not in work.known:
        return
    mean, std = (part.clone() for part in work.known[node.name])
    for channel in channels:
        mean[channel] /= 2
        std[channel] /= 2
        mean, std = torch.cat([mean, mean[channel][None]]), torch.cat([std, std[channel][None]])
    work.known[node.name] = (mean, std)


def _keep(work: Work, record: ChannelSplit) -> None:
    work.prepared = replace(work.prepared, split=(*work.prepared.split, record))


def _obstacle(layer: Layer, names: list[str]) -> str:
    if names.count(layer.name) > 1:
        return "it runs more than once"
    if not layer.is_module:
        return NO_MODULE
    grouped = op_name(layer.node) != "linear" and int(argument(layer.node, "groups", 1)) > 1
    return "its channels are grouped" if grouped else ""


def _pair_obstacle(pair: Pair) -> str:
    for layer in (pair.first, *pair.readers):
        if why := _obstacle(layer, [layer.name]):
            return f"{layer.name}: {why}"
    for node in pair.between:
        if op_name(node) in ("view", "reshape"):
            return f"{node.name} is written for a number of channels"
        slopes = value_of(node.all_input_nodes[1]) if op_name(node) == "prelu" else None
        if slopes is not None and slopes.numel() > 1:
            return f"{node.name} has a slope for each channel"
    return ""
