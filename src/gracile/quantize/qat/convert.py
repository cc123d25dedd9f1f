"""From trained fake quantization to the plan and the weights that are deployed.

Evaluation computes ``op(x, integers * scale) + bias`` in each layer, norm included; integers and scales are
taken as they are. A channel whose scale is so small that its bias would not fit 32 bits is given a larger
one, as in post-training quantization.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.nn.affine import dequantize, fake_quantize
from gracile.records import EdgeQuant, QuantPlan, Skipped, WeightQuant

from ..graph_fold import fold_norms_, set_bias_, set_parameter_
from ..lower import fetch
from ..units import Layer, Units, find_units
from ..weights import once, room_for_bias
from .activations import TrainableActivation

if TYPE_CHECKING:
    from .batch_norm import QatLayer
    from .model import QatModel


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
    weight = dequantize(found.integers, scale, torch.zeros_like(scale), axis)
    if input_scale is not None:
        scale = room_for_bias(scale, found.bias, input_scale)
        most = layer.quantizer.qmax
        weight = fake_quantize(weight, scale, torch.zeros_like(scale), -most, most, axis)
    return Final(weight=weight, bias=found.bias.float(), scale=scale)


def quantized(model: QatModel, units: Units) -> list[Layer]:
    """Layers of the captured graph that train quantized."""
    trained = model.layers
    return [layer for layer in once(units) if layer.name in trained]


def finals(model: QatModel, units: Units) -> dict[str, Final]:
    """Every layer as deployed."""
    grids = {name: part for name, part in model.activations.items() if part.enabled}
    found = {}
    for layer in quantized(model, units):
        owner = units.carried[layer.source].name
        part = grids.get(f"{owner}:layers") or grids.get(owner)
        found[layer.name] = final(model.layers[layer.name], None if part is None else part.grid()[0])
    return found


def deployed(model: QatModel) -> tuple[fx.GraphModule, QuantPlan]:
    """The captured graph with norms folded and every layer's deployed weights, and the grids of both."""
    graph = model.float_copy()
    trained = dict(model.network.named_parameters(remove_duplicate=False))
    for name, held in graph.named_parameters(remove_duplicate=False):  # what is not quantized trained too
        if name in trained:
            held.copy_(trained[name])
    fold_norms_(graph)
    units = find_units(graph)
    made = finals(model, units)
    for layer in quantized(model, units):
        where = fetch(graph, str(layer.weight.target)).device  # the graph stays where it was captured
        set_parameter_(graph, str(layer.weight.target), made[layer.name].weight.to(where))
        bias = made[layer.name].bias
        if layer.bias is not None or bool(bias.any()):
            set_bias_(graph, layer.node, bias.to(where))
    graph.recompile()
    return graph, _plan(model, made)


def _plan(model: QatModel, made: dict[str, Final]) -> QuantPlan:
    """Trained grids as plain data."""
    weights, floats = [], []
    for name, one in made.items():
        layer = model.layers[name]
        if one.scale is None:
            floats.append(Skipped(name, "its weights have two scales, so it runs in float"))
            continue
        weights.append(
            WeightQuant(
                layer=name,
                bits=layer.quantizer.bits,
                qmin=-layer.quantizer.qmax,
                qmax=layer.quantizer.qmax,
                axis=layer.operation.out_axis if one.scale.dim() else None,
                scale=tuple(one.scale.reshape(-1).tolist()),
                zero_point=(0,) * one.scale.numel(),
            )
        )
    grids = model.activations
    return QuantPlan(
        weights=tuple(weights),
        edges=tuple(edge_of(name, part, grids) for name, part in grids.items() if part.enabled),
        estimator="trained",
        skipped=(*model.skipped, *floats),
        prepared=model.prepared,
    )


def edge_of(name: str, part: TrainableActivation, grids: Container[str]) -> EdgeQuant:
    """The record of a trained grid, ``grids`` being the names of all."""
    node, _, second = name.partition(":")
    scale, zero_point, qmin, qmax = part.grid()
    readers = "layers" if second else "rest" if f"{node}:layers" in grids else "all"
    return EdgeQuant(
        node=node, bits=part.bits, qmin=qmin, qmax=qmax, scale=scale, zero_point=zero_point, readers=readers
    )


def write_back(model: QatModel, target: nn.Module) -> nn.Module:
    """See :meth:`QatModel.write_back`."""
    graph, _ = deployed(model)
    norms = {pair.layer: pair.norm for pair in model.prepared.folded}
    held: dict[str, Tensor] = dict(target.named_parameters(remove_duplicate=False))
    held |= dict(target.named_buffers(remove_duplicate=False))
    for name, value in model.network.named_parameters(remove_duplicate=False):
        if name in held and not name.startswith(("layers.", "quantizers.")):
            held[name].copy_(value)
    for layer in quantized(model, find_units(graph)):
        weight, bias = str(layer.weight.target), None if layer.bias is None else str(layer.bias.target)
        _copy(held, weight, fetch(graph, weight))
        norm = norms.get(layer.name)
        if norm is not None:
            if bias in held:
                held[bias].zero_()
            _idle(target.get_submodule(norm), torch.zeros(()) if bias is None else fetch(graph, bias))
        elif bias is not None:
            _copy(held, bias, fetch(graph, bias))
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
