"""Weights written as unsigned integers are the same weights, and are not added in pairs of 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from gracile import export
from gracile.errors import BadArgument
from gracile.nn import QuantizedModel
from gracile.observe import lacks_vnni
from gracile.quantize import Scheme, may_overflow, ptq

Exported = tuple[QuantizedModel, tuple[Tensor, ...], Path]
Export = Callable[..., Exported]


@pytest.mark.parametrize(("name", "scheme"), [
    ("residual", "plain"), ("grouped", "plain"), ("attention", "plain"), ("residual", "per tensor"),
    ("residual", "w4a4"),
])  # fmt: skip
def test_nothing_signed_is_left_and_nothing_changes(name: str, scheme: str, exported: Export) -> None:
    _, inputs, path = exported(name, scheme)
    proto = onnx.load(path)
    signed = [t for t in proto.graph.initializer if t.data_type == TensorProto.INT8]
    assert signed
    x = {"input": torch.randn(2, *inputs[0].shape[1:]).numpy()}
    (wanted,) = ReferenceEvaluator(proto).run(None, x)
    count = export.unsigned_weights(proto)
    onnx.checker.check_model(proto, full_check=True)
    assert count >= len({t.name for t in signed if len(t.dims) > 1})
    assert not [t for t in proto.graph.initializer if t.data_type == TensorProto.INT8]
    np.testing.assert_array_equal(ReferenceEvaluator(proto).run(None, x)[0], wanted)
    assert export.unsigned_weights(proto) == 0


def _layer(kind: str, *, zero_point: bool) -> onnx.ModelProto:
    """One layer that reads a weight without a zero point, or with one that two nodes share."""
    weight = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    held = [numpy_helper.from_array(weight, "w")]
    zero = ["z"] if zero_point else []
    if kind == "MatMulInteger":
        held += [
            numpy_helper.from_array(np.array(3, np.uint8), "a"),
            numpy_helper.from_array(np.array(1, np.int8), "z"),
        ]
        nodes = [helper.make_node(kind, ["x", "w", "a", *zero], ["y"])]
        ends = [("x", TensorProto.UINT8), ("y", TensorProto.INT32)]
    else:
        held += [numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "s"),
                 numpy_helper.from_array(np.array([0, 1, 2, 3], np.int8), "z")]  # fmt: skip
        nodes = [helper.make_node(kind, ["w", "s", *zero], [out], axis=0) for out in ("one", "two")]
        nodes += [
            helper.make_node("Add", ["one", "two"], ["w2"]),
            helper.make_node("MatMul", ["x", "w2"], ["y"]),
        ]
        ends = [("x", TensorProto.FLOAT), ("y", TensorProto.FLOAT)]
    values = [helper.make_tensor_value_info(name, kind, [2, 4]) for name, kind in ends]
    if not zero_point:
        held = [t for t in held if t.name != "z"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("zero_point", [False, True])
@pytest.mark.parametrize("kind", ["DequantizeLinear", "MatMulInteger"])
def test_zero_points_may_be_absent_or_shared(kind: str, zero_point: bool) -> None:
    proto = _layer(kind, zero_point=zero_point)
    x = {"x": np.arange(8).reshape(2, 4).astype(np.uint8 if kind == "MatMulInteger" else np.float32)}
    (wanted,) = ReferenceEvaluator(proto).run(None, x)
    assert export.unsigned_weights(proto) == 1
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_array_equal(ReferenceEvaluator(proto).run(None, x)[0], wanted)


@pytest.mark.parametrize("computed", ["s", "z"])
def test_what_is_not_stored_is_left_alone(computed: str) -> None:
    proto = _layer("DequantizeLinear", zero_point=computed == "z")
    value = next(t for t in proto.graph.initializer if t.name == computed)
    proto.graph.node.insert(0, helper.make_node("Constant", [], [computed], value=value))
    proto.graph.initializer.remove(value)
    before = proto.SerializeToString()
    assert export.unsigned_weights(proto) == 0
    assert proto.SerializeToString() == before


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="int8 or uint8"):
        export.onnx(nn.Linear(2, 2), (torch.zeros(1, 2),), tmp_path / "m.onnx", weights="int4")  # type: ignore[arg-type]


@pytest.mark.usefixtures("this_processor")
@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_what_this_processor_makes_of_large_weights(tmp_path: Path, runtime: str) -> None:
    """Equal weights and bright inputs: every pair overflows, where pairs are added."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    net = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.fill_(0.5)
    images = torch.rand(16, 8, 6, 6) * 0.1 + 0.9

    def steps(reduce_range: bool, weights: str = "int8") -> float:
        scheme = Scheme(reduce_range=reduce_range, weight_range="minmax")
        quantized = ptq(net, (images[:1],), [images], scheme)
        assert bool(may_overflow(quantized)) is not reduce_range
        path = tmp_path / f"{reduce_range}{weights}.onnx"
        export.onnx(quantized, (images[:1],), path, weights=weights)  # type: ignore[arg-type]
        return float(export.output_steps(quantized, path, images[:4], runtime=runtime).max())

    assert steps(reduce_range=True) < 0.1
    assert (steps(reduce_range=False) > 50) == lacks_vnni()
    if runtime == "ort":
        assert steps(reduce_range=False, weights="uint8") < 0.1
