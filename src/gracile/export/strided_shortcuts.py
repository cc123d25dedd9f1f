"""A shortcut made of slices and zero channels becomes one 1x1 convolution with stride, in quantized files.

Residual networks without parameters in their shortcuts take every second pixel and pad the missing channels
with zeros (option A). ONNX Runtime and OpenVINO run Slice and Pad one after another in plain copying kernels.
The same map is a convolution whose 1x1 kernel is 1 where an output channel copies an input channel and 0
elsewhere: ``y[:, before + c, i, j] = x[:, c, s i, s j]``. With weights 0 and 1 at scale 1 and equal scales
before and after, integers pass unchanged, so the result is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

from .merge_pads import drop_unread, zero_padding

_TO_THE_END = 2**31 - 1


@dataclass
class _Graph:
    """Who makes a value, who reads it, and what constants hold."""

    makers: dict[str, NodeProto]
    readers: dict[str, list[NodeProto]]
    constants: dict[str, NDArray[np.generic]]

    @classmethod
    def of(cls, proto: ModelProto) -> _Graph:
        readers: dict[str, list[NodeProto]] = {}
        for node in proto.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        makers = {output: node for node in proto.graph.node for output in node.output}
        return cls(makers, readers, constants)

    def ints(self, name: str) -> list[int] | None:
        """A constant as integers; ``None`` where it is computed."""
        value = self.constants.get(name)
        return None if value is None else [int(v) for v in value.reshape(-1)]

    def same(self, one: NodeProto, other: NodeProto) -> bool:
        """Whether two quantizers have the same scale and zero point."""
        for a, b in zip(one.input[1:3], other.input[1:3], strict=True):
            if a != b and not (
                a in self.constants
                and b in self.constants
                and np.array_equal(self.constants[a], self.constants[b])
            ):
                return False
        return len(one.input) == len(other.input) == 3


@dataclass
class _Shortcut:
    """``first`` dequantizes what comes in, ``last`` quantizes what goes out."""

    first: NodeProto
    last: NodeProto
    pad: NodeProto
    strides: dict[int, int]


def strided_shortcuts(proto: ModelProto) -> tuple[str, ...]:
    """Replace each quantized chain of strided slices and a zero padding of channels, in place.

    Chains stay as they are where a slice does not start at 0, cuts the end, or takes another axis than the
    spatial ones, where anything but zeros is padded, where the grid changes, or where another node reads a
    value in between.

    Returns:
        Names of the new convolutions, those of the paddings that they replace.
    """
    graph = _Graph.of(proto)
    found = [s for node in proto.graph.node if node.op_type == "Pad" and (s := _shortcut(graph, node))]
    if not found:
        return ()
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in shape_inference.infer_shapes(proto).graph.value_info
    }
    made = []
    for shortcut in found:
        shape = shapes.get(shortcut.first.output[0], [])
        if len(shape) >= 3 and shape[1] > 0:
            made.append(_replace(proto, graph, shortcut, shape))
    drop_unread(proto)
    return tuple(made)


def _shortcut(graph: _Graph, pad: NodeProto) -> _Shortcut | None:
    """The chain around ``pad``: slices before it, quantizers of one grid between and around."""
    if _channels(graph, pad) is None:
        return None
    last = graph.readers.get(pad.output[0], [])
    if len(last) != 1 or last[0].op_type != "QuantizeLinear":
        return None
    strides: dict[int, int] = {}
    node = graph.makers.get(pad.input[0])
    while node is not None and node.op_type == "DequantizeLinear":
        before = graph.makers.get(node.input[0])
        cut = graph.makers.get(before.input[0]) if before is not None else None
        steps = _strides(graph, cut) if cut is not None else None
        if before is None or cut is None or steps is None or strides.keys() & steps.keys():
            break
        values = (node.output[0], before.output[0], cut.output[0])
        one_grid = graph.same(node, before) and graph.same(before, last[0])
        if not one_grid or any(len(graph.readers[value]) != 1 for value in values):
            break
        strides |= steps
        node = graph.makers.get(cut.input[0])
    integers = node is not None and node.op_type == "DequantizeLinear"
    return _Shortcut(node, last[0], pad, strides) if node is not None and integers and strides else None


def _strides(graph: _Graph, cut: NodeProto) -> dict[int, int] | None:
    """Spatial axis to stride of a slice that starts at 0 and runs to the end; ``None`` for other nodes."""
    if cut.op_type != "Slice":
        return None
    names = [*cut.input, "", ""][1:5]
    starts, ends, axes, steps = (graph.ints(name) for name in names)
    if starts is None or ends is None or axes is None or steps is None:
        return None
    whole = all(start == 0 for start in starts) and all(end >= _TO_THE_END for end in ends)
    if not whole or min(axes) < 2 or min(steps) < 1:
        return None
    return dict(zip(axes, steps, strict=True))


def _channels(graph: _Graph, pad: NodeProto) -> tuple[int, int] | None:
    """How many zero channels come before and after; ``None`` where the padding does something else."""
    zeros = zero_padding(pad, graph.constants)
    if zeros is None or len(zeros[0]) < 3:
        return None
    begins, ends = zeros
    return None if any(begins[:1] + begins[2:] + ends[:1] + ends[2:]) else (begins[1], ends[1])


def _replace(proto: ModelProto, graph: _Graph, shortcut: _Shortcut, shape: Sequence[int]) -> str:
    """Put the convolution where the padding was; the quantizers at both ends stay."""
    counts = _channels(graph, shortcut.pad)
    assert counts is not None
    name: str = shortcut.pad.name
    channels, spatial = shape[1], len(shape) - 2
    weight = np.zeros((sum(counts) + channels, channels) + (1,) * spatial, dtype=np.int8)
    weight[counts[0] : counts[0] + channels, :] = np.eye(channels, dtype=np.int8).reshape(
        (channels, channels) + (1,) * spatial
    )
    constants: Mapping[str, NDArray[np.generic]] = {
        f"{name}.weight": weight,
        f"{name}.scale": np.array(1.0, dtype=np.float32),
        f"{name}.zero": np.array(0, dtype=np.int8),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    nodes = (
        helper.make_node(
            "DequantizeLinear", list(constants), [f"{name}.float"], name=f"dequantize:{name}.weight"
        ),
        helper.make_node(
            "Conv",
            [shortcut.first.output[0], f"{name}.float"],
            [shortcut.pad.output[0]],
            name=name,
            kernel_shape=[1] * spatial,
            strides=[shortcut.strides.get(axis, 1) for axis in range(2, len(shape))],
        ),
    )
    where = list(proto.graph.node).index(shortcut.pad)
    proto.graph.node.remove(shortcut.pad)
    for offset, node in enumerate(nodes):
        proto.graph.node.insert(where + offset, node)
    return name
