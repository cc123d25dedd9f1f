"""``bench``: models and files side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gracile import export

FAST = ("--batch", "1,2", "--runs", "6", "--threads", "1")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "small.onnx"
    export.onnx(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (torch.zeros(2, 3, 2, 2),), path)
    return path


def test_a_file_in_a_runtime(gracile: Any, file: Path) -> None:
    ended = gracile("bench", file, "--runtime", "ort", "--json", *FAST)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [(speed["runtime"], speed["batch"]) for speed in found["speeds"]] == [("ort", 1), ("ort", 2)]
    assert found["hardware"]["cores"] >= 1


def test_a_model_in_torch_and_exported(gracile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a short name: a long one is cut in the table
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))"
    )
    model = "net.py:build"
    ended = gracile("bench", model, "--runtime", "torch,ort", "--input", "3,2,2", *FAST)
    assert ended.code == 0, ended.err
    assert "ONNX Runtime" in ended.out
    assert f"{model} in ort" in ended.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--runtime", "otr"], "Did you mean ort?"),
        (["--runtime", "torch"], "torch only"),
        (["gracile:demo_net", "--runtime", "torch"], "torch only, for"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_wrong_use(gracile: Any, file: Path, arguments: list[str], word: str) -> None:
    ended = gracile("bench", file, *arguments)
    assert ended.code == 2
    assert word in ended.err


def test_files_that_are_no_models(gracile: Any, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x00\x01\x02")
    assert gracile("bench", tmp_path / "a.onnx").code == 2
    assert gracile("bench", tmp_path / "absent.onnx").code == 2


def test_inputs_of_different_shapes(gracile: Any, file: Path) -> None:
    ended = gracile("bench", file, "gracile:demo_net", "--runtime", "ort")
    assert ended.code == 2
    assert "one shape" in ended.err


def test_a_file_of_one_batch_size(gracile: Any, tmp_path: Path) -> None:
    model, path = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), tmp_path / "fixed.onnx"
    export.onnx(model, (torch.zeros(2, 3, 2, 2),), path, dynamic_batch=False)
    for more in ((), ("--input", "3,2,2")):
        refused = gracile("bench", path, "--runtime", "ort", *FAST, *more)
        assert refused.code == 2
        assert "batches of 1, 2" in refused.err
        assert "2 always" in refused.err
        assert "--batch 2" in refused.err
    ended = gracile("bench", path, "--runtime", "ort", *FAST, "--batch", "2", "--json")
    assert [speed["batch"] for speed in json.loads(ended.out)["speeds"]] == [2]
