"""Put trainable quantizers into a captured graph: batch norms stay with the layers before them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from gracile.errors import UnsupportedOperation
from gracile.observe import Calibration, device_of
from gracile.records import EdgeQuant, Preparation, QuantPlan

from ..activations import edge_grids
from ..bits import layer_bits
from ..calibration import float32_batches
from ..graph_fold import fold_norms_
from ..lower import argument, fetch, lower, op_name, per_axis, value_of
from ..model import drop_unread, hang_behind
from ..reduced_range import reduced_layers
from ..scheme import Scheme
from ..units import Layer, Units, find_units
from ..weights import check_finite
from .activations import ACTIVATION_QUANTIZERS, TrainableActivation
from .batch_norm import SCHEMES_OF_BN, NoNorm, QatLayer
from .model import QatModel
from .operation import Operation
from .scheme import QatScheme
from .shared import shared_parameters
from .weights import WEIGHT_QUANTIZERS, WeightQuantizer

T = TypeVar("T")
_FROM_ZERO = ("pact", "unit")  # they cut what is below zero


@torch.inference_mode(False)  # what trains must not be made of inference tensors
def prepare(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: Calibration,
    scheme: QatScheme | None = None,
) -> QatModel:
    """A network that quantizes its weights and activations while it trains.

    Leave batch norms in: where they stand while training is the scheme's choice. The original is not
    touched; :meth:`QatModel.write_back` brings what was learned into it, :meth:`QatModel.convert` gives the
    model that is deployed. Dropout does not act, and a batch norm that follows no layer keeps its statistics.
    A layer that shares a parameter, as a classifier with an embedding, trains tied to it, in float, and is
    recorded as skipped.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was. What trains is a float32 copy
            of it, where it lies.
        inputs: Example inputs, any batch size.
        calibration: Batches of unlabelled inputs for the first ranges, prepared as for training: tensors or,
            for several inputs, tuples or lists of them; or one tensor.
        scheme: Bits and techniques; by default 4-bit weights and 8-bit activations, both learned.

    Raises:
        BadArgument: ``calibration`` is empty or not what the model takes, or a pattern fits no layer.
        NonFiniteError: Weights or activations hold NaN or infinity; the layer is named.
        CaptureError: ``torch.export`` refuses the model.
        UnsupportedOperation: A layer runs more than once in different ways.

    Example:
        >>> from gracile.quantize import Bits
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
        >>> images = torch.randn(16, 3, 8, 8)
        >>> trained = prepare(net, (images[:1],), images.split(8), QatScheme(ends=Bits()))
        >>> [layer.quantizer.bits for layer in trained.layers.values()]
        [4, 4]
        >>> trained.train()(images).square().mean().backward()  # any loop
        >>> deployed = trained.eval().convert()
        >>> bool((deployed(images) - trained(images)).abs().max() < 0.05)
        True
    """
    scheme = scheme or QatScheme()
    batches = list(float32_batches(calibration, model, len(inputs)))
    graph = lower(model, inputs)
    folded = copy.deepcopy(graph)
    norms = fold_norms_(folded)
    units = find_units(folded)
    check_finite(folded, units)
    bits = layer_bits(units, scheme)
    ranges = Scheme(sum_bits=scheme.sum_bits, activation_range=scheme.activation_range)
    edges = edge_grids(folded, units, batches, ranges, bits)
    behind = {pair.layer for pair in norms.pairs}
    shared = shared_parameters(graph, units, behind)
    work = _Work(
        network=copy.deepcopy(graph),
        normalised=behind,
        bits=bits,
        reduced=reduced_layers(units, bits, scheme.reduce_range),
        scheme=scheme,
        momenta=_momenta(model),
    )
    for layer in units.layers:
        if layer.name in shared:
            work.leave(layer)
        else:
            work.store(layer)
    work.quantize_edges(units, edges)
    network = work.finished()
    prepared = Preparation(folded=tuple(norms.pairs), skipped=tuple(dict.fromkeys(norms.skipped)))
    skipped = tuple(dict.fromkeys([*units.skipped, *shared.values()]))
    return QatModel(network, graph, work.keys, prepared, skipped)


@dataclass(kw_only=True)
class _Work:
    """A copy of the unfolded graph while layers and quantizers are put into it."""

    network: fx.GraphModule
    normalised: set[str]
    bits: dict[str, tuple[int, int]]
    reduced: frozenset[str]
    scheme: QatScheme
    momenta: Mapping[str, float | None]

    def __post_init__(self) -> None:
        for name in ("layers", "quantizers"):
            self.network.add_submodule(name, nn.Module())
        self.nodes = {node.name: node for node in self.network.graph.nodes}
        self.made: dict[str, QatLayer] = {}
        self.keys: dict[str, str] = {}
        self.replaced: dict[str, fx.Node] = {}

    def store(self, layer: Layer) -> None:
        """Replace a layer, with the norm behind it, by one that quantizes its weight."""
        node = self.nodes[layer.node.name]
        operation = operation_of(node)
        module = self.made.get(layer.name)
        if module is None:
            module = self.made[layer.name] = self._make(layer, node, operation)
            self.network.add_submodule(f"layers.{node.name}", module)
            self.keys[layer.name] = f"layers.{node.name}"
        elif module.operation != operation:
            raise UnsupportedOperation(
                layer.name, wanted="a layer that runs once, or in one way", found="two different strides"
            )
        end = self._end(layer)
        with self.network.graph.inserting_after(end):
            new = self.network.graph.call_module(self.keys[layer.name], (node.args[0],))
        new.meta = dict(end.meta)
        end.replace_all_uses_with(new)
        for old in dict.fromkeys((end, node)):
            self.network.graph.erase_node(old)
        self.replaced[node.name] = new

    def leave(self, layer: Layer) -> None:
        """Let a layer, with the norm behind it, run in float."""
        self.replaced[layer.node.name] = self._end(layer)

    def _end(self, layer: Layer) -> fx.Node:
        """The norm behind a layer, or the layer where there is none."""
        node: fx.Node = self.nodes[layer.node.name]
        return next(iter(node.users)) if layer.name in self.normalised else node

    def _make(self, layer: Layer, node: fx.Node, operation: Operation) -> QatLayer:
        def stored(name: str) -> Tensor | None:
            part = argument(node, name)
            return None if part is None else fetch(self.network, str(part.target)).detach().clone()

        weight, bias = stored("weight"), stored("bias")
        assert weight is not None
        quantizer = self._quantizer(self.bits[layer.name][0], operation, weight)
        quantizer.reduced = layer.name in self.reduced
        if layer.name not in self.normalised:
            return NoNorm(operation, weight, bias, None, quantizer)
        return SCHEMES_OF_BN[self.scheme.batch_norm](operation, weight, bias, self._norm(node), quantizer)

    def _quantizer(self, bits: int, operation: Operation, weight: Tensor) -> WeightQuantizer:
        kind = chosen(WEIGHT_QUANTIZERS, self.scheme.weights, bits)
        axis = operation.out_axis if self.scheme.per_channel else None
        return kind(bits, axis=axis, channels=None if axis is None else weight.shape[axis]).to(weight.device)

    def _norm(self, node: fx.Node) -> nn.modules.batchnorm._BatchNorm:
        """The norm behind a layer as a module of its own."""
        (end,) = node.users

        def stored(name: str) -> Tensor | None:
            part = argument(end, name)
            return None if part is None else fetch(self.network, str(part.target)).detach().clone()

        given = {name: stored(name) for name in ("running_mean", "running_var", "weight", "bias")}
        value, mean = value_of(end), given["running_mean"]
        assert value is not None
        assert mean is not None
        owner = str(argument(end, "running_mean").target).rpartition(".")[0]
        counted = self.network.get_submodule(owner)
        given["num_batches_tracked"] = getattr(counted, "num_batches_tracked", None)
        momentum = self.momenta.get(owner, float(argument(end, "momentum")) or None)
        kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
        norm = kinds[value.dim()](len(mean), eps=float(argument(end, "eps")), momentum=momentum)
        held = norm.to(mean.device).state_dict()
        for name, tensor in given.items():
            if tensor is not None:
                held[name].copy_(tensor)
        return norm

    def quantize_edges(self, units: Units, edges: tuple[EdgeQuant, ...]) -> None:
        """Round activations where the deployed network will."""
        grids = QuantPlan(weights=(), edges=edges)
        readers = {self.replaced[layer.node.name] for layer in units.layers if layer.name in self.keys}
        for edge in grids.own_grids.values():
            new = self._insert(self.replaced.get(edge.node) or self.nodes[edge.node], edge)
            coarse = grids.layer_grids.get(edge.node)
            if coarse is not None and coarse.readers == "layers" and readers & set(new.users):
                self._insert(new, coarse, only=readers)

    def _insert(self, node: fx.Node, edge: EdgeQuant, only: set[fx.Node] | None = None) -> fx.Node:
        new = hang_behind(self.network, node, edge.name, self._activation(edge))
        node.replace_all_uses_with(
            new, delete_user_cb=lambda user: user is not new and (only is None or user in only)
        )
        return new

    def _activation(self, edge: EdgeQuant) -> TrainableActivation:
        low, high = (edge.scale * (limit - edge.zero_point) for limit in (edge.qmin, edge.qmax))
        name = self.scheme.activations
        if (low < 0 and name in _FROM_ZERO) or (name == "unit" and edge.bits == 8):
            name = "lsq"
        module = chosen(ACTIVATION_QUANTIZERS, name, edge.bits)(edge.bits).to(device_of(self.network))
        module.start_(low, high)
        return module

    def finished(self) -> fx.GraphModule:
        """The graph without what it no longer reads; everything in it trains."""
        network = self.network
        network.graph.eliminate_dead_code()
        network.delete_all_unused_submodules()
        drop_unread(network, ("layers", "quantizers"))
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        network.graph.lint()
        network.recompile()
        for node in network.graph.nodes:
            layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(layer, QatLayer) and (reads := reader_of(network, node)) is not None:
                layer.reads = (reads,)  # in a tuple it is no part of the layer
        return network


def _momenta(model: nn.Module) -> dict[str, float | None]:
    """Of batch norms by name: a graph captured in evaluation mode has 0 for ``None``."""
    parts = model.named_modules(remove_duplicate=False)
    return {name: part.momentum for name, part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm)}


def reader_of(network: fx.GraphModule, node: fx.Node) -> TrainableActivation | None:
    """What rounds the values that ``node`` reads, before operations that only move them."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.op != "placeholder":
        part = network.get_submodule(str(source.target)) if source.op == "call_module" else None
        if isinstance(part, TrainableActivation):
            return part
        source = source.args[0] if source.args else None
    return None


def chosen(known: Mapping[str, type[T]], name: str, bits: int) -> type[T]:
    """The technique asked for or, where it does not have these bits, the first that does."""
    return next(kind for kind in (known[name], *known.values()) if bits in kind.BITS)  # type: ignore[attr-defined]


def operation_of(node: fx.Node) -> Operation:
    """What a captured layer does with its weight."""
    name = op_name(node)
    if name == "linear":
        return Operation(kind=name)
    axes = int(name[-2])
    return Operation(
        kind=name,
        stride=tuple(per_axis(node, "stride", axes)),
        padding=tuple(per_axis(node, "padding", axes)),
        dilation=tuple(per_axis(node, "dilation", axes)),
        groups=int(argument(node, "groups", 1)),
    )
