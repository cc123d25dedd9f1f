"""Slices and zero channels that become one convolution with stride."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from gracile.export.strided_shortcuts import strided_shortcuts

X = np.random.default_rng(0).normal(size=(2, 3, 7, 8)).astype(np.float32)


def shortcut(
    *,
    strides: tuple[int, int] = (2, 2),
    before: int = 1,
    after: int = 2,
    zero: int = 100,
    start: int = 0,
    end: int = 2**31 - 1,
    value: float = 0.0,
    rows: int = 0,
    other_scale: bool = False,
    read_between: bool = False,
) -> ModelProto:
    """Quantize, slice rows, slice columns, pad channels, with a pair of quantizers behind each."""
    nodes, source = [], "x"

    def pair(name: str, scale: str = "scale") -> None:
        nonlocal source
        nodes.append(helper.make_node("QuantizeLinear", [source, scale, "zero"], [f"{name}:q"], name=name))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}:q", scale, "zero"], [f"{name}:f"]))
        source = f"{name}:f"

    pair("input")
    for axis in (2, 3):
        step = f"step{axis}"
        nodes.append(helper.make_node("Slice", [source, "start", "end", f"axis{axis}", step], [f"cut{axis}"]))
        source = f"cut{axis}"
        pair(f"slice{axis}", "other" if other_scale and axis == 2 else "scale")
    nodes.append(helper.make_node("Pad", [source, "pads", "value"], ["padded"], name="pad"))
    source = "padded"
    pair("pad_out")
    outputs = [source, "slice3:f"] if read_between else [source]
    constants = {
        "scale": np.float32(0.03),
        "other": np.float32(0.05),
        "zero": np.uint8(zero),
        "start": np.array([start]),
        "end": np.array([end]),
        "axis2": np.array([2]),
        "axis3": np.array([3]),
        "step2": np.array([strides[0]]),
        "step3": np.array([strides[1]]),
        "pads": np.array([0, before, rows, 0, 0, after, 0, 0]),
        "value": np.float32(value),
    }
    nodes[-2].input[1] = nodes[-1].input[1] = "scale"
    if read_between:
        nodes.append(helper.make_node("Identity", ["slice3:f"], ["also"]))
        outputs = [source, "also"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *X.shape[1:]])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["n", "c", "h", "w"]) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto: ModelProto) -> list[np.ndarray]:
    found: list[np.ndarray] = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": X})
    return found


@given(
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    zero=st.integers(0, 255),
)
@settings(max_examples=30)
def test_the_convolution_gives_the_same_integers(
    strides: tuple[int, int], before: int, after: int, zero: int
) -> None:
    proto = shortcut(strides=strides, before=before, after=after, zero=zero)
    expected = run(proto)[0]
    assert strided_shortcuts(proto) == ("pad",)
    checker.check_model(proto, full_check=True)
    assert [n.op_type for n in proto.graph.node if n.op_type in ("Slice", "Pad", "Conv")] == ["Conv"]
    np.testing.assert_array_equal(run(proto)[0], expected)
    assert strided_shortcuts(proto) == ()


@pytest.mark.parametrize(
    "change",
    [{"value": 0.3}, {"rows": 1}, {"start": 1}, {"end": 5}, {"before": -1}, {"read_between": True}],
    ids=str,
)
def test_what_is_not_such_a_shortcut_stays(change: dict[str, object]) -> None:
    proto = shortcut(**change)  # type: ignore[arg-type]
    before = proto.SerializeToString()
    assert strided_shortcuts(proto) == ()
    assert proto.SerializeToString() == before


def test_a_chain_is_followed_only_as_far_as_its_scale_is_the_same() -> None:
    proto = shortcut(other_scale=True)
    expected = run(proto)[0]
    assert strided_shortcuts(proto) == ("pad",)
    kinds = [n.op_type for n in proto.graph.node if n.op_type in ("Slice", "Pad", "Conv")]
    assert kinds == ["Slice", "Conv"]
    np.testing.assert_array_equal(run(proto)[0], expected)
