"""Activations whose ranges are found at run time: each layer reads its input rounded to that batch's range.

Only layers read integers; sums, averages and activations between them stay in float, and so do biases, since
the scale of a layer's sums is not known beforehand. Nothing is calibrated.

Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, arXiv
1806.08342, section 3 (dynamic quantization), and ``quantize_dynamic`` of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from gracile.nn import DynamicQuantizer
from gracile.records import DynamicQuant, QuantPlan, WeightQuant

from .lower import fetch
from .units import Layer, Units


def dynamic_grids(units: Units, bits: Mapping[str, tuple[int, int]]) -> tuple[DynamicQuant, ...]:
    """What layers read, at the most bits that one of them wants."""
    wanted: dict[str, int] = {}
    for layer in units.layers:
        wanted[layer.source.name] = max(wanted.get(layer.source.name, 0), bits[layer.name][1])
    return tuple(DynamicQuant(node=node, bits=most) for node, most in wanted.items())


def insert_dynamic(module: fx.GraphModule, units: Units, plan: QuantPlan) -> None:
    """Put a quantizer between what a layer reads and the layer; others that read it get it as it was."""
    bits = {entry.node: entry.bits for entry in plan.dynamic}
    made: dict[fx.Node, fx.Node] = {}
    for layer in units.layers:
        source = layer.source
        if source.name not in bits:
            continue
        if source not in made:
            key = f"quantizers.{source.name}"
            module.add_submodule(key, DynamicQuantizer(source.name, bits[source.name]))
            with module.graph.inserting_before(source.next):
                made[source] = module.graph.call_module(key, (source,))
            made[source].meta = {k: v for k, v in source.meta.items() if k == "val"}
        layer.node.args = (made[source], *layer.node.args[1:])


def float_bias(module: fx.GraphModule, layer: Layer, plan: WeightQuant) -> fx.Node | None:
    """The layer's bias with what rounding shifts added, read as it is."""
    if layer.bias is None and not plan.bias_shift:
        return None
    where = fetch(module, str(layer.weight.target)).device
    shift = torch.tensor(plan.bias_shift or (0.0,), device=where)
    bias = shift if layer.bias is None else fetch(module, str(layer.bias.target)).detach() + shift
    name = layer.node.name
    module.get_submodule("biases").register_buffer(name, bias.clone())
    return module.graph.get_attr(f"biases.{name}")
