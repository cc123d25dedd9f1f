"""Simulation and runtime, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from gracile import export
from gracile.errors import BadArgument, ExportError
from gracile.nn import ActivationQuantizer, QuantizedModel
from gracile.observe import lacks_vnni
from gracile.testing import net

Export = Callable[..., tuple[nn.Module, tuple[Tensor, ...], Path]]


def _need_openvino() -> None:
    pytest.importorskip("openvino")
    if lacks_vnni():
        pytest.skip("OpenVINO's AVX2 kernel of strided 1x1 convolutions gives other numbers at each call")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("residual", "plain"),
        ("residual", "default"),
        ("residual", "symmetric"),
        ("residual", "per tensor"),
        ("residual", "four bits"),
        ("residual", "two grids"),
        ("depthwise", "plain"),
        ("concat", "plain"),
    ],
)
def test_within_one_step_everywhere(name: str, scheme: str, exported: Export) -> None:
    quantized, _, path = exported(name, scheme)
    rows = export.parity(quantized, path, torch.randn(6, 3, 8, 8))
    quantizers = {m.name for m in quantized.modules() if isinstance(m, ActivationQuantizer)}
    assert {row["layer"] for row in rows} <= quantizers
    missing = quantizers - {row["layer"] for row in rows}
    slices = {name for name in missing if name.startswith("slice")}  # in the file, part of a convolution
    assert len(missing - slices) <= (name == "concat")  # its two equal branches are one in the file
    assert not slices or name == "residual"
    assert max(row["max_steps"] for row in rows) <= 1
    assert export.first_apart(rows) is None
    assert all(row["drift_steps"] >= 0 for row in rows)


def test_openvino_is_compared_layer_by_layer_too(exported: Export) -> None:
    _need_openvino()
    quantized, _, path = exported("residual", "four bits")
    x = torch.randn(6, 3, 8, 8)
    rows = export.parity(quantized, path, x, runtime="openvino")
    assert [row["layer"] for row in rows] == [row["layer"] for row in export.parity(quantized, path, x)]
    assert export.first_apart(rows) is None


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
@pytest.mark.parametrize("scheme", ["w4a4", "w2a8", "w3a6"])
def test_few_bits_run_in_integers_and_give_the_simulations_output(
    scheme: str, runtime: str, exported: Export
) -> None:
    if runtime == "openvino":
        _need_openvino()
    quantized, _, path = exported("residual", scheme)
    layers = [row for row in export.kernels(path, runtime=runtime) if row["bits"] is not None]
    assert {row["bits"] for row in layers} == {int(scheme[1])}
    assert len(layers) == 6
    assert all(row["integer"] for row in layers)
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert isinstance(quantized, QuantizedModel)
    steps = export.output_steps(quantized, path, x, runtime=runtime)
    assert steps.shape == (16,)
    assert steps.max() <= 1


def test_an_unknown_runtime_is_refused(exported: Export) -> None:
    quantized, inputs, path = exported("plain")
    with pytest.raises(BadArgument, match="ort or openvino"):
        export.parity(quantized, path, inputs[0], runtime="tensorrt")


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_the_layer_that_differs_is_named(runtime: str, exported: Export, tmp_path: Path) -> None:
    """A weight is changed in the file: that layer and no other parts from the simulation."""
    quantized, _, whole = exported("residual", "reduced")
    path = tmp_path / "m.onnx"
    proto = onnx.load(whole)
    node = next(n for n in proto.graph.node if n.name == "conv2")
    maker = next(n for n in proto.graph.node if node.input[1] in n.output)
    stored = next(t for t in proto.graph.initializer if t.name == maker.input[0])
    stored.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(stored), stored.name))
    onnx.save(proto, path)
    if runtime == "openvino":
        _need_openvino()
    rows = export.parity(quantized, path, torch.randn(6, 3, 8, 8), runtime=runtime)
    apart = [row["layer"] for row in rows if row["max_steps"] > 1]
    assert apart == [export.first_apart(rows)] == ["conv2d_2"]


def test_looking_leaves_the_model_as_it_was(exported: Export) -> None:
    quantized, _, path = exported("residual")
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = quantized(x)
        export.parity(quantized, path, x)
        assert torch.equal(quantized(x), before)
    assert not any(m._forward_hooks for m in quantized.modules())


def test_another_models_file_is_refused(exported: Export, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(ExportError, match="the file that was exported from this model"):
        export.parity(exported("plain")[0], exported("residual")[2], x)
    model, inputs = net("plain")
    export.onnx(model, inputs, tmp_path / "float.onnx")
    with pytest.raises(ExportError, match="no quantized value"):
        export.parity(exported("plain")[0], tmp_path / "float.onnx", x)
