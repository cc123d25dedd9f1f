"""Weights of 8 bits in half their range, for processors that add products in pairs of 16 bits.

x86 without VNNI multiplies unsigned by signed bytes with ``vpmaddubsw``, which adds two products into one
signed 16-bit number and stops at its end: ``255 * 127 + 255 * 127 = 64,770`` becomes 32,767. With weights in
``-64..64`` no pair can exceed 16 bits.

Source: "Saturation (overflow) issue workaround", OpenVINO documentation, https://docs.openvino.ai/latest/
pot_saturation_issue.html; ``reduce_range`` of ONNX Runtime's and PyTorch's quantizers is the same. Where we
differ: it acts only on layers that read 8 bits, and :func:`may_overflow` proves from the integers which
layers need it, where the source says that only a run on such a processor can tell.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gracile.nn import QuantizedModel, QuantizedWeight
from gracile.observe import lacks_vnni
from gracile.records import PairOverflow

from .units import Units, find_units

REDUCED_BITS = 7
"""Bits whose grid is half that of 8 bits."""
_LEAST, _MOST = -(2**15), 2**15 - 1
_CONTAINER = 255  # the largest input whose range is found at run time


def reduces(reduce_range: bool | None) -> bool:
    """What a scheme's ``reduce_range`` comes to: ``None`` is up to this processor."""
    return lacks_vnni() if reduce_range is None else reduce_range


def reduced_layers(
    units: Units, bits: Mapping[str, tuple[int, int]], reduce_range: bool | None
) -> frozenset[str]:
    """Layers whose weights take half their range: those of 8 bits that read 8 bits.

    Args:
        units: Of the graph.
        bits: Of weights and of what is read, by layer.
        reduce_range: Of the scheme.
    """
    if not reduces(reduce_range):
        return frozenset()
    read: dict[object, int] = {}
    for layer in units.layers:
        owner = units.carried[layer.source]
        read[owner] = max(read.get(owner, 0), bits[layer.name][1])
    return frozenset(
        layer.name
        for layer in units.layers
        if bits[layer.name][0] == 8 and read[units.carried[layer.source]] == 8
    )


def grid_bits(name: str, bits: int, reduced: frozenset[str]) -> int:
    """Bits of the grid that a layer's weights are rounded to.

    Example:
        >>> grid_bits("conv", 8, frozenset({"conv"})), grid_bits("conv", 8, frozenset())
        (7, 8)
    """
    return REDUCED_BITS if name in reduced else bits


def may_overflow(quantized: QuantizedModel) -> tuple[PairOverflow, ...]:
    """Layers in which two products may exceed 16 bits, in some order of the products, for some input.

    For every output channel the two largest weights of one sign are taken times the largest input: if that
    fits, every pair does, whatever the layout of the kernel. So a layer that is not named runs exactly on any
    processor; one that is named may overflow on x86 without VNNI, in ONNX Runtime and in OpenVINO.

    Args:
        quantized: From :func:`gracile.quantize.ptq` or a trained one that was converted.

    Returns:
        One entry for each such layer, in the order of the plan; empty where none can.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gracile.quantize import Scheme, ptq
        >>> net, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(8, 3, 8, 8)
        >>> found = [ptq(net, (images[:1],), [images], Scheme(reduce_range=r)) for r in (False, True)]
        >>> [len(may_overflow(one)) for one in found]
        [1, 0]
    """
    units = find_units(quantized.float_graph)
    inputs = {node: edge.qmax for node, edge in quantized.plan.layer_grids.items()}
    sources = {layer.name: units.carried[layer.source].name for layer in units.layers}
    stored = {m.name: m for m in quantized.modules() if isinstance(m, QuantizedWeight)}
    found = []
    for weight in quantized.plan.weights:
        if weight.group is not None or weight.layer not in stored:
            continue  # computed in float
        largest = inputs.get(sources[weight.layer], _CONTAINER)
        integers = stored[weight.layer].integers
        beyond = _beyond(integers, largest)
        if beyond:
            found.append(PairOverflow(layer=weight.layer, channels=beyond, of=len(integers)))
    return tuple(found)


def _beyond(integers: Tensor, largest: int) -> int:
    """Rows of ``(out, ...)`` with two weights whose products with ``largest`` exceed 16 bits together."""
    rows = integers.long().flatten(1)
    if rows.shape[1] < 2:
        return 0
    up = rows.clamp(min=0).topk(2, 1).values.sum(1) * largest
    down = rows.clamp(max=0).topk(2, 1, largest=False).values.sum(1) * largest
    return int(((up > _MOST) | (down < _LEAST)).sum())
