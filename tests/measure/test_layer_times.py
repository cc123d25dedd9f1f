"""Times of layers carry the names that the file gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gracile import export, quantize
from gracile.errors import BadArgument, ModelError
from gracile.measure import layer_times
from gracile.measure.layer_times import _layer
from gracile.testing import net

IMAGES = np.zeros((4, 3, 8, 8), np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, inputs = net("plain")
    quantized = quantize.ptq(model, inputs, torch.randn(16, 3, 8, 8).split(8))
    path = tmp_path_factory.mktemp("times") / "model.onnx"
    export.onnx(quantized, inputs, path)
    return path


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_every_layer_has_a_time(file: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    layers = {row["layer"] for row in export.kernels(file) if row["op"] in ("Conv", "Gemm")}
    times = layer_times(file, IMAGES, runtime=runtime, runs=3, warmup=1, threads=1)
    missing = layers - set(times)
    assert not missing or (runtime, missing) == ("openvino", {"fc2"})  # it runs fc1 and fc2 as one operation
    assert all(times[layer] > 0 for layer in layers - missing)
    assert all(ms >= 0 for ms in times.values())


def test_the_batch_costs_time(file: Path) -> None:
    small = layer_times(file, IMAGES[:1], runs=5, threads=1)
    large = layer_times(file, np.tile(IMAGES, (64, 1, 1, 1)), runs=5, threads=1)
    assert sum(large.values()) > 4 * sum(small.values())  # 256 times the work


def test_names_that_runtimes_add_to() -> None:
    names = ["layer1.0", "layer1.0.conv", "fc"]
    assert _layer("layer1.0.conv_kernel_time", names) == "layer1.0.conv"
    assert _layer("layer1.0.conv/WithoutBiases", names) == "layer1.0.conv"
    assert _layer("fused fc", names) == "fc"
    assert _layer("layer1.01_kernel_time", names) == "layer1.01_kernel_time"


def test_what_cannot_be_is_refused(file: Path) -> None:
    with pytest.raises(BadArgument, match="ort or openvino"):
        layer_times(file, IMAGES, runtime="tvm")
    with pytest.raises(BadArgument, match="at least 1"):
        layer_times(file, IMAGES, runs=0)
    with pytest.raises(ModelError):
        layer_times(file.with_name("absent.onnx"), IMAGES)
