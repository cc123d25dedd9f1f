"""Empirical bias correction: each layer's mean output becomes the float one again.

Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019,
arXiv 1906.04721, section 4.2 and appendix D (the empirical form). Rounding moves the mean of a layer's
output; the shift of the mean is subtracted from its bias. Layers are corrected in graph order in a single
pass, each behind the corrected ones before it, so that what is corrected is what will be run.

It does not always help: on ResNet-56 with least-squares ranges it made the error of the logits three times
larger on images it had not seen, though every layer's mean was right. So the correction is judged on other
calibration images by the error of the model's output, and kept only if that falls.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from gracile.nn import QuantizedModel

from ..grid import TINY
from ..lower import numbers
from ..units import Units

_IMAGES = 64


def bias_shifts(
    float_graph: fx.GraphModule,
    quantized_graph: fx.GraphModule,
    units: Units,
    images: tuple[Tensor, ...],
) -> dict[str, tuple[float, ...]]:
    """What to add to each layer's bias.

    Args:
        float_graph: The lowered graph.
        quantized_graph: The same graph with quantizers; layers keep their node names.
        units: The layers.
        images: Calibration images; a mean over 64 of them and all positions needs no more.

    Returns:
        Layer name to one shift per output channel. A layer that is called twice is left out.
    """
    names = [layer.name for layer in units.layers]
    nodes = {layer.node.name: layer.name for layer in units.layers if names.count(layer.name) == 1}
    with torch.no_grad():
        means = _Means(float_graph, nodes)
        means.run(*images)
        shifts = _Means(quantized_graph, nodes, wanted=means.found)
        shifts.run(*images)
    return {layer: tuple(shift.tolist()) for layer, shift in shifts.found.items()}


class _Means(fx.Interpreter):
    """Runs a graph; finds each layer's mean output, or its shift to ``wanted``, which it applies at once."""

    def __init__(
        self, module: fx.GraphModule, nodes: dict[str, str], wanted: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__(module)
        self.nodes, self.wanted = nodes, wanted
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        layer = self.nodes.get(n.name)
        if layer is None:
            return value
        assert isinstance(value, Tensor)
        axes = [d for d in range(value.dim()) if d != 1]
        mean = value.mean(axes)  # (out,)
        if self.wanted is None:
            self.found[layer] = mean
            return value
        shift = self.wanted[layer] - mean
        self.found[layer] = shift
        return value + shift.reshape(1, -1, *[1] * (value.dim() - 2))


def split_images(batches: list[tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Images to learn from and images to judge by, up to 64 each; a single image serves for both."""
    columns = [torch.cat(column) for column in zip(*batches, strict=True)]
    half = min(_IMAGES, max(1, len(columns[0]) // 2))
    return tuple(c[:half] for c in columns), tuple(c[-half:] for c in columns)


def output_error(model: QuantizedModel, images: tuple[Tensor, ...]) -> float:
    """Squared error of the quantized output relative to the float one, summed over outputs."""
    with torch.no_grad():
        found, wanted = numbers(model(*images)), numbers(model.float_graph(*images))
    return sum(
        float((f - w).square().sum() / w.square().sum().clamp(min=TINY))
        for f, w in zip(found, wanted, strict=True)
    )
