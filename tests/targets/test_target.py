"""Targets say only what is true: the listed formats really run in integer kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gracile.records import from_json, to_json
from gracile.targets import TARGETS, IntegerFormat, Target


def _quantized(path: Path, formats: IntegerFormat) -> np.ndarray:
    """A 3x3 convolution from 16 to 16 channels in QDQ form."""
    weight = np.random.default_rng(0).integers(0, 100, (16, 16, 3, 3)).astype(formats.weight)
    values = [
        numpy_helper.from_array(np.float32(0.05), "s"),
        numpy_helper.from_array(np.zeros((), formats.activation), "za"),
        numpy_helper.from_array(np.zeros((), formats.weight), "zw"),
        numpy_helper.from_array(weight, "wq"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "za"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "za"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "s", "zw"], ["w"]),
        helper.make_node("Conv", ["xd", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "za"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "za"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "conv", ends[:1], ends[1:], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return np.random.default_rng(1).random((1, 16, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("formats", TARGETS["onnxruntime-cpu"].integers, ids=str)
def test_onnxruntime_runs_the_listed_formats_in_integers(tmp_path: Path, formats: IntegerFormat) -> None:
    _quantized(tmp_path / "a.onnx", formats)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), options, providers=["CPUExecutionProvider"])
    kernels = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "QLinearConv" in kernels
    assert "Conv" not in kernels


@pytest.mark.parametrize("formats", TARGETS["openvino-cpu"].integers, ids=str)
def test_openvino_runs_the_listed_formats_in_integers(tmp_path: Path, formats: IntegerFormat) -> None:
    openvino = pytest.importorskip("openvino")
    _quantized(tmp_path / "a.onnx", formats)
    compiled = openvino.Core().compile_model(str(tmp_path / "a.onnx"), "CPU")
    facts = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    kernels = {fact["layerType"].astype(str): fact["primitiveType"].astype(str) for fact in facts}
    assert kernels["Convolution"].endswith("I8")


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_target_survives_json_and_has_its_own_name(target: Target) -> None:
    assert TARGETS[target.name] is target
    assert from_json(Target, to_json(target)) == target


@given(st.sampled_from(sorted(TARGETS)), st.integers(1, 200), st.integers(1, 200))
def test_a_useful_width_is_wide_enough_and_there(name: str, width: int, available: int) -> None:
    target = TARGETS[name]
    found = target.useful_width(min(width, available), available)
    assert min(width, available) <= found <= available
    assert found == available or (found % target.channel_multiple == 0 and found >= target.channel_floor)


def test_what_a_target_cannot_do_is_said() -> None:
    ort, openvino, torch = (TARGETS[name] for name in ("onnxruntime-cpu", "openvino-cpu", "torch-cpu"))
    assert all(target.remarks([]) == () for target in (ort, openvino, torch))
    assert ort.remarks([(8, 8)]) == openvino.remarks([(8, 8)]) == ()
    assert "no integer kernels" in torch.remarks([(8, 8)])[0]
    (few,) = ort.remarks([(8, 8), (4, 8), (8, 3)])
    assert "2 of 3 layers make this file neither faster nor smaller" in few
    signed = IntegerFormat(activation="int8", weight="int8")
    assert "2.3 times slower" in ort.remarks([(8, 8)], signed)[0]
    assert openvino.remarks([(8, 8)], signed) == ()
    odd = IntegerFormat(activation="uint8", weight="uint8")
    (float_only,) = openvino.remarks([(4, 4)], odd)
    assert (
        "uint8 activations with uint8 weights in floating point; uint8 with int8 runs in integers"
        in float_only
    )


def test_what_may_overflow_is_said_where_products_are_added_in_pairs() -> None:
    ort, openvino, torch = (TARGETS[name] for name in ("onnxruntime-cpu", "openvino-cpu", "torch-cpu"))
    for target in (ort, openvino):
        (text,) = target.remarks([(8, 8), (8, 8)], overflowing=1)
        assert "may overflow in 1 of 2 layers" in text
        assert "reduce_range" in text
    assert "no integer kernels" in torch.remarks([(8, 8)], overflowing=1)[0]
    assert ort.remarks([(8, 8)], IntegerFormat(activation="uint8", weight="uint8"), overflowing=1) == ()


def test_the_encoding_of_a_target_is_what_it_runs_best() -> None:
    for target in TARGETS.values():
        assert target.encoding is (target.integers[0] if target.integers else None)
        assert target.encoding is None or target.encoding.note == ""
