"""Runtimes as plain functions: all give what numpy gives."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gracile import export
from gracile.errors import BadArgument, MissingExtra, ModelError, UsageError
from gracile.measure import openvino_runner, ort_runner, ort_session, torch_runner
from gracile.measure.runtimes import RUNTIMES


def by_hand(images: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64) @ weight.astype(np.float64)


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_runtime(linear_onnx: Path, weight: np.ndarray, images: np.ndarray, batch: int) -> None:
    runner = ort_runner(linear_onnx, threads=1)
    np.testing.assert_allclose(runner(images[:batch]), by_hand(images[:batch], weight), rtol=1e-4, atol=1e-4)


def test_a_batch_that_the_file_does_not_take_is_wrong_use(tmp_path: Path) -> None:
    inputs = (torch.zeros(1, 12),)
    export.onnx(nn.Linear(12, 2), inputs, tmp_path / "fixed.onnx", dynamic_batch=False)
    with pytest.raises(UsageError) as caught:
        ort_runner(tmp_path / "fixed.onnx", threads=1)(np.zeros((5, 12), np.float32))
    assert caught.value.where == "fixed.onnx in ort"
    assert caught.value.wanted == "inputs of shape [1, 12], tensor(float)"
    assert caught.value.found == "[5, 12], float32"


@pytest.mark.parametrize("batch", [1, 5])
def test_openvino_computes_floats_in_32_bits(
    linear_onnx: Path, weight: np.ndarray, images: np.ndarray, batch: int
) -> None:
    pytest.importorskip("openvino")
    runner = openvino_runner(linear_onnx, threads=1)
    np.testing.assert_allclose(runner(images[:batch]), by_hand(images[:batch], weight), rtol=1e-4, atol=1e-4)
    [compiled] = runner.compiled.values()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_openvino_takes_another_precision_when_told(linear_onnx: Path, images: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a processor with bfloat16")
    exact = openvino_runner(linear_onnx, threads=1)(images)
    rounded = openvino_runner(linear_onnx, threads=1, precision="bf16")(images)
    assert 1e-3 < np.abs(rounded - exact).max() < 1


def test_torch(images: np.ndarray) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4)).train()
    got = torch_runner(model, threads=1)(images)
    expected = model[2](torch.from_numpy(images).flatten(1)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert model.training


def test_torch_threads_are_set_and_put_back(images: np.ndarray) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return x.flatten(1)

    before = torch.get_num_threads()
    torch_runner(Spy(), threads=before + 1)(images)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_session_takes_threads(linear_onnx: Path) -> None:
    assert ort_session(linear_onnx, threads=1).get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_files_that_cannot_be_run(tmp_path: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    with pytest.raises(ModelError, match=r"none\.onnx: wanted an ONNX file, found no such file"):
        RUNTIMES[runtime](tmp_path / "none.onnx", 1)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"bad\.onnx: wanted a model that .* can run, found .+"):
        RUNTIMES[runtime](tmp_path / "bad.onnx", 1)


def test_openvino_is_optional(linear_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"openvino: .*pip install 'gracile\[openvino\]'"):
        openvino_runner(linear_onnx)


def test_bad_arguments(linear_onnx: Path) -> None:
    with pytest.raises(BadArgument, match="threads: wanted at least 1, found threads=0"):
        ort_runner(linear_onnx, threads=0)
    with pytest.raises(BadArgument, match=r"torch: wanted a torch\.nn\.Module, found a PosixPath"):
        torch_runner(linear_onnx)  # type: ignore[arg-type]


def test_torch_in_half_precision() -> None:
    model = nn.Linear(4, 2).bfloat16()
    images = np.ones((3, 4), np.float32)
    wanted = model(torch.ones(3, 4, dtype=torch.bfloat16)).detach().float().numpy()
    np.testing.assert_array_equal(torch_runner(model, threads=1)(images), wanted)
