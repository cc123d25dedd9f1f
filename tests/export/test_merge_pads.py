"""Zero padding that becomes the convolution's own."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from gracile.export.merge_pads import merge_pads

X = np.random.default_rng(0).normal(size=(2, 3, 7, 7)).astype(np.float32)


def padded(
    pads: list[int], *, value: float = 0.0, between: bool = False, own: list[int] | None = None
) -> ModelProto:
    """Pad (and QuantizeLinear, DequantizeLinear) and a convolution behind it."""
    nodes = [helper.make_node("Pad", ["x", "pads", "value"], ["padded"])]
    source = "padded"
    if between:
        nodes.append(helper.make_node("QuantizeLinear", ["padded", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]))
        source = "dq"
    nodes.append(helper.make_node("Conv", [source, "w"], ["y"], pads=own or [0, 0, 0, 0]))
    weight = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)
    constants = {
        "pads": np.array(pads, dtype=np.int64),
        "value": np.float32(value),
        "w": weight,
        "scale": np.float32(0.04),
        "zero": np.uint8(128),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto: ModelProto, x: np.ndarray = X) -> np.ndarray:
    found: np.ndarray = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("pads", [[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 2]])
@pytest.mark.parametrize("own", [None, [1, 0, 2, 1]])
def test_even_and_uneven_padding_merge_exactly(pads: list[int], own: list[int] | None) -> None:
    proto = padded(pads, own=own)
    before = run(proto)
    assert merge_pads(proto) == 1
    checker.check_model(proto, full_check=True)
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    np.testing.assert_allclose(run(proto), before, atol=1e-5)
    assert merge_pads(proto) == 0


def test_the_quantizers_between_go_with_the_padding() -> None:
    """On values that lie on the grid, as those before a padding in a quantized file do."""
    proto = padded([0, 0, 1, 0, 0, 0, 1, 1], between=True)
    on_grid = np.clip(np.round(X / np.float32(0.04)), -128, 127).astype(np.float32) * np.float32(0.04)
    before = run(proto, on_grid)
    assert merge_pads(proto) == 1
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    assert {t.name for t in proto.graph.initializer} == {"w"}
    np.testing.assert_allclose(run(proto, on_grid), before, atol=1e-4)


@pytest.mark.parametrize(
    ("pads", "value"),
    [([0, 0, 1, 1, 0, 0, 1, 1], 0.5), ([0, 0, -1, 0, 0, 0, 0, 0], 0.0)],
)
def test_other_values_and_cuts_are_left_alone(pads: list[int], value: float) -> None:
    proto = padded(pads, value=value)
    before = proto.SerializeToString()
    assert merge_pads(proto) == 0
    assert proto.SerializeToString() == before


def test_padding_of_channels_is_left_alone() -> None:
    proto = padded([0, 0, 0, 0, 0, 0, 0, 0])
    pads = next(t for t in proto.graph.initializer if t.name == "pads")
    pads.CopyFrom(numpy_helper.from_array(np.array([0, 1, 0, 0, 0, 1, 0, 0], dtype=np.int64), "pads"))
    assert merge_pads(proto) == 0
