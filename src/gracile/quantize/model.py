"""A plan put into a captured graph: the simulation of what the runtime will compute."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument
from gracile.nn import ActivationQuantizer, QuantizedBias, QuantizedModel
from gracile.observe import device_of
from gracile.records import EdgeQuant, QuantPlan, WeightQuant

from .dynamic import float_bias, insert_dynamic
from .lower import fetch, lower, value_of
from .prepare import replay_
from .units import Layer, Units, find_units, upper_bound
from .weights import stored_weight


def rebuild(model: nn.Module, inputs: tuple[Tensor, ...], plan: QuantPlan) -> QuantizedModel:
    """Quantize ``model`` as ``plan`` says, without calibration data.

    Args:
        model: The float model that the plan was made for, folded where that was; it is left as it was.
        inputs: Example inputs, any batch size.
        plan: From :func:`gracile.quantize.ptq`, possibly read back from JSON.

    Raises:
        BadArgument: The plan belongs to another model.
        CaptureError: ``torch.export`` refuses the model.
    """
    graph = lower(model, inputs)
    replay_(graph, plan.prepared)
    return assemble(graph, plan)


def assemble(float_graph: fx.GraphModule, plan: QuantPlan) -> QuantizedModel:
    """Put the quantizers of ``plan`` into a copy of a lowered graph."""
    module = copy.deepcopy(float_graph)
    units = find_units(module)
    own, for_layers = plan.own_grids, plan.layer_grids
    weights = {weight.layer: weight for weight in plan.weights}
    _check(units, own, for_layers, weights, {entry.node for entry in plan.dynamic})
    for name in ("weights", "biases", "quantizers"):
        module.add_submodule(name, nn.Module())
    for layer in units.layers:
        if layer.name in weights:
            edge = for_layers.get(units.carried[layer.source].name)
            _store_layer(module, layer, weights[layer.name], edge.scale if edge else None)
    insert_dynamic(module, units, plan)
    read_by = {layer.node for layer in units.layers if layer.name in weights}
    for node, owner in list(units.carried.items()):
        if owner.name in own and value_of(node) is not None:
            new = _insert_quantizer(module, node, own[owner.name], units.fused.get(node))
            coarse = for_layers.get(owner.name)
            if coarse is not None and coarse.readers == "layers" and read_by & set(new.users):
                _insert_second(module, new, node.name, coarse, read_by)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    drop_unread(module, ("weights", "biases", "quantizers"))
    module.recompile()
    return QuantizedModel(float_graph, module, plan)


def _check(
    units: Units,
    own: dict[str, EdgeQuant],
    for_layers: dict[str, EdgeQuant],
    weights: dict[str, WeightQuant],
    dynamic: set[str],
) -> None:
    names = {node.name for node in units.carried}
    layers = {layer.name for layer in units.layers}
    unknown = sorted({*own, *for_layers} - names) + sorted(set(weights) - layers)
    sources = {layer.source for layer in units.layers if layer.name in weights}
    unknown += sorted(dynamic - {source.name for source in sources})
    owners = {units.carried[source].name for source in sources if source.name not in dynamic}
    missing = sorted((owners - set(for_layers)) | (set(for_layers) - set(own)))
    if unknown or missing:
        first = f"{unknown[0]}, which this model lacks" if unknown else f"no grid for {missing[0]}"
        raise BadArgument(
            "plan",
            wanted="the plan of this model, captured in the same form",
            found=first,
            do="Make the plan again with ptq().",
        )


def _store_layer(module: fx.GraphModule, layer: Layer, plan: WeightQuant, input_scale: float | None) -> None:
    """Let the layer read stored integers in place of its float weight and, where scales are known, bias."""
    weight = fetch(module, str(layer.weight.target))
    bias = None if layer.bias is None else fetch(module, str(layer.bias.target))
    key = layer.node.name
    stored = stored_weight(weight, plan)
    module.add_submodule(f"weights.{key}", stored)
    with module.graph.inserting_before(layer.node):
        parts: list[fx.Node | None] = [module.graph.call_module(f"weights.{key}"), None]
    if bias is None and plan.bias_shift:
        bias = torch.zeros(len(plan.bias_shift), device=weight.device)
    if input_scale is None:
        with module.graph.inserting_before(layer.node):
            parts[1] = float_bias(module, layer, plan)
    elif bias is not None:
        shift = torch.tensor(plan.bias_shift, device=bias.device) if plan.bias_shift else 0
        module.add_submodule(
            f"biases.{key}", QuantizedBias(layer.name, bias + shift, input_scale * stored.accumulator_scale)
        )
        with module.graph.inserting_before(layer.node):
            parts[1] = module.graph.call_module(f"biases.{key}")
    rest = layer.node.args[3:]
    layer.node.args = (layer.node.args[0], *parts, *rest)
    layer.node.kwargs = {k: v for k, v in layer.node.kwargs.items() if k not in ("weight", "bias")}


def _insert_quantizer(
    module: fx.GraphModule, node: fx.Node, plan: EdgeQuant, fused: fx.Node | None
) -> fx.Node:
    new = _quantized(module, node, node.name, plan if fused is None else _reached(plan, node))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    if fused is not None:  # the grid clips, so the activation goes
        new.args = (fused,)
        module.graph.erase_node(node)
    return new


def _reached(plan: EdgeQuant, activation: fx.Node) -> EdgeQuant:
    """The grid without integers beyond what ``activation`` gives, of which a trained one may have some."""
    above = min(plan.qmax - plan.zero_point, upper_bound(activation) / plan.scale)
    return replace(plan, qmin=plan.zero_point, qmax=plan.zero_point + round(above))


def _insert_second(
    module: fx.GraphModule, behind: fx.Node, name: str, plan: EdgeQuant, readers: set[fx.Node]
) -> None:
    """Let the layers among the readers of a quantized value read it on a grid of their own."""
    new = _quantized(module, behind, f"{name}:layers", plan)
    behind.replace_all_uses_with(new, delete_user_cb=lambda user: user in readers)


def _quantized(module: fx.GraphModule, node: fx.Node, name: str, plan: EdgeQuant) -> fx.Node:
    quantizer = ActivationQuantizer(name, plan.scale, plan.zero_point, plan.qmin, plan.qmax, plan.bits)
    return hang_behind(module, node, name, quantizer.to(device_of(module)))


def hang_behind(module: fx.GraphModule, node: fx.Node, name: str, quantizer: nn.Module) -> fx.Node:
    """A call of ``quantizer`` on the value of ``node``, which nothing reads yet."""
    key = f"quantizers.{name.replace(':', '_for_')}"
    module.add_submodule(key, quantizer)
    with module.graph.inserting_after(node):
        new = module.graph.call_module(key, (node,))
    new.meta = {k: v for k, v in node.meta.items() if k == "val"}
    return new


def drop_unread(module: fx.GraphModule, rooms: Collection[str]) -> None:
    """Delete the parameters and buffers that the graph no longer reads, those in ``rooms`` aside."""
    read = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    for name in [n for n, _ in [*module.named_parameters(), *module.named_buffers()]]:
        owner = name.rpartition(".")[0]
        if name not in read and owner.split(".")[0] not in rooms:
            delattr(module.get_submodule(owner), name.rpartition(".")[2])
