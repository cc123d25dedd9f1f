"""From trained fake quantization to the plan and the weights that are deployed.

Evaluation computes ``op(x, integers * scale) + bias`` in each layer, norm included; integers and scales are
taken as they are. A channel whose scale is so small that its bias would not fit 32 bits is given a larger
one, as in post-training quantization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.records import EdgeQuant, QuantPlan, Skipped, WeightQuant

from ..graph_fold import fold_norms_, set_bias_, set_parameter_
from ..lower import fetch
from ..units import Layer, Units, find_units

if TYPE_CHECKING:
    from .batch_norm import QatLayer
    from .model import QatModel

_MOST = 2**30  # largest bias, in steps of the accumulator


@dataclass(frozen=True, kw_only=True)
class Final:
    """One layer as deployed: ``weight`` and ``bias`` as real values; no ``scale`` where it stays in float."""

    weight: Tensor
    bias: Tensor
    scale: Tensor | None


def final(layer: QatLayer, input_scale: float | None) -> Final:
    """Integers and scales of a layer as real values on their grid."""
    try:
        found = layer.deployed()
    except UnsupportedOperation:  # two scales
        weight, shift = layer.effective()
        outputs = layer.operation.outputs(weight)
        return Final(weight=weight, bias=weight.new_zeros(outputs) if shift is None else shift, scale=None)
    axis = layer.operation.out_axis
    scale = found.scale.float().clamp_min(torch.finfo(torch.float32).tiny)
    weight = found.integers.float() * along(scale, axis, found.integers.dim())
    if input_scale is not None:
        floor = found.bias.abs() / (input_scale * _MOST)
        scale = torch.maximum(scale, floor if scale.dim() else floor.max())
        step = along(scale, axis, weight.dim())
        weight = (weight / step).round() * step
    return Final(weight=weight, bias=found.bias.float(), scale=scale)


def along(scale: Tensor, axis: int, dims: int) -> Tensor:
    """``scale`` in a shape that multiplies along ``axis``."""
    return scale if scale.dim() == 0 else scale.reshape([-1 if d == axis else 1 for d in range(dims)])


def finals(model: QatModel, units: Units) -> dict[str, Final]:
    """Every layer as deployed."""
    grids = {name: part for name, part in model.activations.items() if part.enabled}
    found = {}
    for layer in units.layers:
        owner = units.carried[layer.source].name
        part = grids.get(f"{owner}:layers") or grids.get(owner)
        found[layer.name] = final(model.layers[layer.name], None if part is None else part.grid()[0])
    return found


def deployed_graph(model: QatModel) -> fx.GraphModule:
    """The captured graph with norms folded and every layer's deployed weights."""
    graph = model.float_copy()
    trained = dict(model.network.named_parameters())
    for name, held in graph.named_parameters():  # layers that are not quantized trained too
        if name in trained:
            held.copy_(trained[name])
    fold_norms_(graph)
    units = find_units(graph)
    for layer, made in _by_layer(units, finals(model, units)):
        where = fetch(graph, str(layer.weight.target)).device  # the graph stays where it was captured
        set_parameter_(graph, str(layer.weight.target), made.weight.to(where))
        if layer.bias is not None or bool(made.bias.any()):
            set_bias_(graph, layer.node, made.bias.to(where))
    graph.recompile()
    return graph


def deployed_plan(model: QatModel, graph: fx.GraphModule) -> QuantPlan:
    """Trained grids as plain data."""
    units = find_units(graph)
    weights, floats = [], []
    for layer, made in _by_layer(units, finals(model, units)):
        quantizer = model.layers[layer.name].quantizer
        if made.scale is None:
            floats.append(Skipped(layer.name, "its weights have two scales, so it runs in float"))
            continue
        most = max(2 ** (quantizer.bits - 1) - 1, 1)
        weights.append(
            WeightQuant(
                layer=layer.name,
                bits=quantizer.bits,
                qmin=-most,
                qmax=most,
                axis=model.layers[layer.name].operation.out_axis if made.scale.dim() else None,
                scale=tuple(made.scale.reshape(-1).tolist()),
                zero_point=(0,) * made.scale.numel(),
            )
        )
    return QuantPlan(
        weights=tuple(weights),
        edges=tuple(edge_of(name, part, model) for name, part in model.activations.items() if part.enabled),
        estimator="trained",
        skipped=(*model.skipped, *floats),
        prepared=model.prepared,
    )


def edge_of(name: str, part: nn.Module, model: QatModel) -> EdgeQuant:
    """The record of a trained grid."""
    node, _, second = name.partition(":")
    scale, zero_point, qmin, qmax = part.grid()  # type: ignore[operator]
    readers = "layers" if second else "rest" if f"{node}:layers" in model.activations else "all"
    bits: int = part.bits  # type: ignore[assignment]
    return EdgeQuant(
        node=node, bits=bits, qmin=qmin, qmax=qmax, scale=scale, zero_point=zero_point, readers=readers
    )


def _by_layer(units: Units, made: dict[str, Final]) -> list[tuple[Layer, Final]]:
    """Layers by name, each once."""
    once = {layer.name: layer for layer in reversed(units.layers)}
    return [(layer, made[name]) for name, layer in reversed(once.items())]


def write_back(model: QatModel, target: nn.Module) -> nn.Module:
    """See :meth:`QatModel.write_back`."""
    graph = deployed_graph(model)
    norms = {pair.layer: pair.norm for pair in model.prepared.folded}
    held = dict(target.named_parameters()) | dict(target.named_buffers())
    for name, value in model.network.named_parameters():
        if name in held and not name.startswith(("layers.", "quantizers.")):
            held[name].copy_(value)
    units = find_units(graph)
    for layer in {layer.name: layer for layer in units.layers}.values():
        bias = torch.zeros(()) if layer.bias is None else fetch(graph, str(layer.bias.target))
        weight = fetch(graph, str(layer.weight.target))
        _copy(held, f"{layer.name}.weight", weight)
        norm = norms.get(layer.name)
        if norm is None:
            if layer.bias is not None:
                _copy(held, f"{layer.name}.bias", bias)
            continue
        if f"{layer.name}.bias" in held:
            held[f"{layer.name}.bias"].zero_()
        _idle(target.get_submodule(norm), bias)
    return target


def _copy(held: dict[str, Tensor], name: str, value: Tensor) -> None:
    if name not in held or held[name].shape != value.shape:
        found = "no such parameter" if name not in held else f"shape {tuple(held[name].shape)}"
        raise BadArgument("model", wanted=f"{name} of shape {tuple(value.shape)}", found=found)
    held[name].copy_(value)


def _idle(norm: nn.Module, bias: Tensor) -> None:
    """Let a norm add ``bias`` and do nothing else."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.weight is None:
        raise BadArgument(
            "model", wanted="batch norms with scale and shift", found="affine=False",
            do="Deploy what convert() gives.",
        )  # fmt: skip
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)
