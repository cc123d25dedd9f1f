"""High biases absorbed by the next layer: what a ReLU always lets through need not go through it.

Source: Nagel, van Baalen, Blankevoort and Welling, "Data-free quantization through weight equalization and
bias correction", ICCV 2019, arXiv 1906.04721, on absorbing high biases: with
``c_i = max(0, beta_i - 3 gamma_i)``, ``relu(x - c) = relu(x) - c`` for all but 0.13 % of normal values;
``c`` leaves the bias of the first layer and ``W c`` enters that of the next. With calibration data ``c_i`` is
the smallest value seen, if that is above zero.

Where we differ: readers that pad with zeros are left alone, since a border does not hold ``c``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from gracile.errors import BadArgument
from gracile.records import BiasAbsorption, Skipped

from ..graph_fold import set_bias_
from ..lower import argument, fetch, op_name
from ..pairs import Pair, columns, find_pairs, weight_of
from ..units import Layer, find_units
from .work import Work

_THROUGH = frozenset({"relu", "flatten", "view", "reshape", "slice", "max_pool2d", "max_pool1d", ""})


@dataclass(frozen=True, kw_only=True)
class AbsorbBias:
    """Move high biases behind their ReLU.

    Args:
        sigmas: Deviations below the mean that still count as always let through, above 0.
    """

    sigmas: float = 3.0
    exact = False

    def __post_init__(self) -> None:
        if not self.sigmas > 0:
            raise BadArgument("sigmas", wanted="above 0", found=f"{self.sigmas=}")

    def apply(self, work: Work) -> None:
        """Move biases in ``work`` and record what was moved, and where a border forbids it."""
        seen = work.extremes() if work.batches else {}
        for pair in find_pairs(work.units()).found:
            amount = self._amount(work, pair, seen)
            if not bool((amount > 0).any()):
                continue
            if why := _obstacle(pair):
                work.skipped.append(Skipped(pair.first.name, why))
                continue
            record = BiasAbsorption(
                first=pair.first.name,
                readers=tuple(reader.name for reader in pair.readers),
                amount=tuple(amount.tolist()),
            )
            absorb_(work.graph, record)
            work.prepared = replace(work.prepared, absorbed=(*work.prepared.absorbed, record))
            if pair.first.node.name in work.known:
                mean, std = work.known[pair.first.node.name]
                work.known[pair.first.node.name] = (mean - amount.to(mean), std)

    def _amount(self, work: Work, pair: Pair, seen: dict[fx.Node, tuple[Tensor, Tensor]]) -> Tensor:
        if seen:
            return seen[pair.first.node][0].clamp(min=0).double()
        mean, std = work.known.get(pair.first.node.name, (torch.zeros(1), torch.zeros(1)))
        return (mean - self.sigmas * std).clamp(min=0).double()


def absorb_(graph: fx.GraphModule, record: BiasAbsorption) -> None:
    """Carry out an absorption, in place."""
    layers = {layer.name: layer for layer in find_units(graph).layers}
    first = layers[record.first]
    amount = torch.tensor(record.amount, dtype=torch.float64, device=weight_of(graph, first).device)
    set_bias_(graph, first.node, (_bias(graph, first) - amount).to(weight_of(graph, first).dtype))
    for reader in (layers[name] for name in record.readers):
        weight = weight_of(graph, reader)
        added = (weight.double() * columns(amount, weight)).flatten(1).sum(1)
        set_bias_(graph, reader.node, (_bias(graph, reader) + added).to(weight.dtype))
    graph.recompile()


def _bias(graph: fx.GraphModule, layer: Layer) -> Tensor:
    bias = argument(layer.node, "bias")
    if bias is None:
        weight = weight_of(graph, layer)
        return weight.new_zeros(len(weight), dtype=torch.float64)
    return fetch(graph, str(bias.target)).detach().double()


def _obstacle(pair: Pair) -> str:
    """Why a bias cannot be moved through, "" where it can."""
    names = [op_name(node) for node in pair.between]
    if "relu" not in names:
        return "its high bias stays: no relu follows it"
    if strange := [name for name in names if name not in _THROUGH]:
        return f"its high bias stays: {strange[0]} lies between"
    for reader in pair.readers:
        padding = argument(reader.node, "padding", 0) if op_name(reader.node) != "linear" else 0
        if any(padding if isinstance(padding, list | tuple) else [padding]):
            return f"its high bias stays: {reader.name} pads with zeros"
    return ""
