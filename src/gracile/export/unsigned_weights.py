"""Signed 8-bit weights written as unsigned ones: the same values, other kernels.

``w = s (q - z) = s ((q + 128) - (z + 128))`` in ``uint8``. On x86 without VNNI, ONNX Runtime adds the
products of unsigned and signed bytes in pairs of 16 bits, which full 8-bit weights overflow; those of two
unsigned bytes it adds in 32 bits. The session option that is meant for this, ``session.x64quantprecision``,
refuses files in which layers share a zero point (ONNX Runtime 1.32). OpenVINO has no integer kernels for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from .merge_pads import drop_unread

_OFFSET = 128
_READS = {"DequantizeLinear": 0, "MatMulInteger": 1, "ConvInteger": 1}
"""Where an operator takes its weight."""
_ZERO = {"DequantizeLinear": 2, "MatMulInteger": 3, "ConvInteger": 3}
"""Where it takes the weight's zero point."""


def unsigned_weights(proto: ModelProto) -> int:
    """Rewrite every int8 weight among the initializers, and its zero point, as uint8, in place.

    A weight whose zero point is neither written nor known by a stored scale's shape stays as it is.

    Returns:
        How many weights there were.
    """
    stored = {t.name: t for t in proto.graph.initializer}
    held = {name: t for name, t in stored.items() if t.data_type == TensorProto.INT8}
    made: dict[str, TensorProto] = {}
    weights = set()
    for node in proto.graph.node:
        place = _READS.get(node.op_type)
        if place is None or node.input[place] not in held:
            continue
        name, zero = node.input[place], _zero_point(node)
        if zero not in held and (
            zero or (node.op_type == "DequantizeLinear" and node.input[1] not in stored)
        ):
            continue
        weights.add(name)
        for index, old in ((place, name), (_ZERO[node.op_type], zero)):
            new = f"{old or f'{name}.zero_point'}:unsigned"
            if new not in made:
                values = numpy_helper.to_array(held[old]) if old else _absent(node, stored)
                made[new] = numpy_helper.from_array((values.astype(np.int16) + _OFFSET).astype(np.uint8), new)
            _set_input(node, index, new)
    proto.graph.initializer.extend(made.values())
    drop_unread(proto)
    return len(weights)


def _zero_point(node: NodeProto) -> str:
    """Name of the zero point that a node reads; empty where it reads none."""
    index = _ZERO[node.op_type]
    return node.input[index] if index < len(node.input) else ""


def _absent(node: NodeProto, stored: Mapping[str, TensorProto]) -> np.ndarray:
    """Zeros in the shape of a zero point that is not written."""
    if node.op_type != "DequantizeLinear":
        return np.zeros((), np.int8)
    return np.zeros(tuple(stored[node.input[1]].dims), np.int8)


def _set_input(node: NodeProto, index: int, name: str) -> None:
    node.input.extend([""] * (index + 1 - len(node.input)))
    node.input[index] = name
