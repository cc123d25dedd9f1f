"""Ranges of activations found at run time: the ONNX operator's numbers, plans, files that run in integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

from gracile import export
from gracile.errors import BadArgument, ExportError
from gracile.measure.runtimes import ort_session
from gracile.nn import DynamicQuantizer
from gracile.quantize import Bits, LeastSquares, MinMax, Nearest, PerGroup, PerTensor, Scheme, ptq, rebuild
from gracile.records import QuantPlan, from_json, to_json
from gracile.testing import net

DYNAMIC = Scheme(dynamic=True, rounding=Nearest())


def images(count: int = 16) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def runtime_session() -> ort.InferenceSession:
    """DynamicQuantizeLinear and back, in ONNX Runtime."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


SESSION = runtime_session()


@settings(max_examples=60)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20))
def test_it_computes_what_the_operator_does(values: list[float]) -> None:
    x = np.array(values, dtype=np.float32)
    found = DynamicQuantizer("x", 8)(torch.from_numpy(x)).numpy()
    step = (max(0.0, x.max()) - min(0.0, x.min())) / 255
    wanted = SESSION.run(None, {"x": x})[0]
    apart = np.abs(found - wanted)
    assert (apart <= step * 1.001 + 1e-30).all()  # a tie may go to the other side
    assert (apart > step / 2).mean() <= 0.5


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_is_min_max_of_the_batch(bits: int) -> None:
    for x in (torch.randn(300), torch.rand(300) + 2, -torch.rand(300), torch.zeros(5)):
        grid = MinMax()(x, bits=bits, signed=False, symmetric=False)
        assert torch.allclose(DynamicQuantizer("x", bits)(x), grid.round(x), atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention"])
def test_no_data_is_needed_and_the_output_stays_near(name: str) -> None:
    model, inputs = net(name)
    quantized = ptq(model, inputs, (), DYNAMIC)
    x = images()
    with torch.no_grad():
        error = (quantized(x) - model(x)).square().mean() / model(x).square().mean()
    assert 0 < float(error) < 0.001
    assert quantized.plan.edges == ()
    assert "of each batch" in quantized.plan.estimator


def test_only_what_layers_read_is_rounded() -> None:
    model, inputs = net("residual")
    quantized = ptq(model, inputs, (), DYNAMIC)
    made = [n for n in quantized.network.graph.nodes if str(n.target).startswith("quantizers.")]
    assert len(made) == len(quantized.plan.dynamic) <= len(quantized.plan.weights)
    readers = [user.name for node in made for user in node.users]
    assert len(readers) == len(quantized.plan.weights)
    assert all("conv" in name or "linear" in name for name in readers)


@pytest.mark.parametrize("rounding", [Nearest(), LeastSquares()])
def test_the_plan_alone_gives_the_same_numbers(rounding: Nearest | LeastSquares) -> None:
    model, inputs = net("residual")
    first = ptq(model, inputs, images().split(8), Scheme(dynamic=True, rounding=rounding))
    plan = from_json(QuantPlan, to_json(first.plan))
    assert plan == first.plan
    with torch.no_grad():
        assert torch.equal(rebuild(model, inputs, plan)(images()), first(images()))
    with pytest.raises(BadArgument, match="which this model lacks"):
        rebuild(*net("plain"), plan)


def test_bits_by_layer_hold_here_too() -> None:
    model, inputs = net("plain")
    plan = ptq(model, inputs, (), Scheme(dynamic=True, rounding=Nearest(), activation_bits=4)).plan
    assert {entry.bits for entry in plan.dynamic} == {4, 8}  # the ends
    everywhere = Scheme(dynamic=True, rounding=Nearest(), activation_bits=4, ends=Bits())
    plan = ptq(model, inputs, (), everywhere).plan
    assert {entry.bits for entry in plan.dynamic} == {4}


@pytest.mark.parametrize("name", ["plain", "concat", "attention"])
def test_the_file_runs_in_integers_and_gives_the_same(name: str, tmp_path: Path) -> None:
    model, inputs = net(name)
    quantized = ptq(model, inputs, (), DYNAMIC)
    path = tmp_path / "dynamic.onnx"
    export.onnx(quantized, inputs, path)
    session = ort_session(path)
    for count in (1, 5):
        x = images(count)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        with torch.no_grad():
            wanted = quantized(x).numpy()
        assert np.abs(found - wanted).max() <= 0.02 * np.abs(wanted).max()
    rows = export.kernels(path)
    layers = {row["layer"]: row for row in rows if row["bits"] == 8}
    assert {w.layer for w in quantized.plan.weights} == {layer.split(":")[0] for layer in layers}
    kernels = {row["kernel"] for row in layers.values()}
    assert all(row["integer"] for row in layers.values())
    assert kernels <= {"ConvInteger", "microsoft.DynamicQuantizeMatMul"}
    assert not any(row["integer"] for row in rows if row["kernel"] in ("Add", "Mul", "Cast", "Softmax"))
    assert export.parity(quantized, path, inputs) == ()


def test_a_linear_layer_without_a_bias_and_one_scale_for_a_weight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(16, 5, bias=False))
    x = torch.randn(4, 3, 8) + 1  # a zero point that padding has to meet
    scheme = Scheme(dynamic=True, rounding=Nearest(), weight_granularity=PerTensor())
    quantized = ptq(model, (x[:1],), (), scheme)
    export.onnx(quantized, (x[:1],), tmp_path / "m.onnx")
    found = ort_session(tmp_path / "m.onnx").run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        wanted = quantized(x).numpy()
    assert np.abs(found - wanted).max() <= 0.01 * np.abs(wanted).max()
    ops = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert {"ConvInteger", "MatMulInteger"} <= ops


@pytest.mark.parametrize("changes", [{"weight_symmetric": False}, {"weight_granularity": PerGroup(size=2)}])
def test_what_integers_cannot_do_stays_in_float(changes: dict[str, object], tmp_path: Path) -> None:
    model, inputs = net("plain")
    quantized = ptq(model, inputs, (), Scheme(dynamic=True, rounding=Nearest(), **changes))  # type: ignore[arg-type]
    export.onnx(quantized, inputs, tmp_path / "m.onnx")
    x = images(3)
    session = ort_session(tmp_path / "m.onnx")
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        wanted = quantized(x).numpy()
    assert np.abs(found - wanted).max() <= 0.02 * np.abs(wanted).max()
    assert "Conv" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    model, inputs = net("plain")
    few = ptq(model, inputs, (), Scheme(dynamic=True, rounding=Nearest(), activation_bits=4))
    with pytest.raises(ExportError, match="wanted 8 bits for activations whose ranges are found at run time"):
        export.onnx(few, inputs, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    with pytest.raises(BadArgument, match="Round to the nearest"):
        ptq(model, inputs, (), Scheme(dynamic=True))
    with pytest.raises(BadArgument, match="activation_symmetric=False"):
        Scheme(dynamic=True, activation_symmetric=True)
