"""Bad input: each ends with a clear error and the right exit code, and nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from gracile.zoo import demo_net, lenet

BRANCH = """
import torch
from torch import nn

class Branch(nn.Module):
    input_shape = (1, 8, 8)
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
    def forward(self, x):
        x = self.linear(x.flatten(1))
        return x if x.sum().item() > 0 else -x

def build():
    return Branch()
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a recipe on digits; arguments replace its parts."""
    monkeypatch.chdir(tmp_path)

    def write(model: str = "", data: str = "{spec: digits}", steps: str = "[{step: export}]") -> Path:
        model = model or "{spec: 'gracile:demo_net'}"
        path = tmp_path / "r.yaml"
        path.write_text(f"name: x\nmodel: {model}\ndata: {data}\nsteps: {steps}\nmeasure: {{threads: 1}}\n")
        return path

    return write


def refuse(gracile: Any, recipe: Path, code: int, *words: str) -> None:
    ended = gracile("compress", recipe, "--out", "out")
    assert ended.code == code, ended.err
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err
    left = [path for path in Path("out").rglob("*") if path.is_file()] if Path("out").exists() else []
    assert not any(path.name.startswith(".") or path.suffix == ".onnx" for path in left)
    assert not Path("out/run.json").exists()


def test_weights_of_another_model(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    safetensors.torch.save_file(lenet().state_dict(), tmp_path / "w.safetensors")
    written = recipe(model="{spec: 'gracile:demo_net', weights: w.safetensors}")
    refuse(gracile, written, 2, "WeightsError", "w.safetensors", "missing")


def test_weights_that_are_not_there(gracile: Any, recipe: Any) -> None:
    refuse(
        gracile, recipe(model="{spec: 'gracile:demo_net', weights: w.pt}"), 2, "WeightsError", "--data-root"
    )


def test_a_pickle_is_not_opened(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    torch.save(demo_net(), tmp_path / "w.pt")
    written = recipe(model="{spec: 'gracile:demo_net', weights: w.pt}")
    refuse(gracile, written, 2, "WeightsError", "pickle")


def test_nan_weights(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    state = demo_net().state_dict()
    state["linear.bias"][3] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    written = recipe(model="{spec: 'gracile:demo_net', weights: w.safetensors}")
    refuse(gracile, written, 1, "NonFiniteError", "linear.bias")


def test_a_model_that_cannot_be_captured(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BRANCH)
    refuse(gracile, recipe(model="{spec: 'net.py:build'}"), 1, "CaptureError", "Branch")


def test_a_model_that_does_not_exist(gracile: Any, recipe: Any) -> None:
    refuse(gracile, recipe(model="{spec: 'gracile:demo_nte'}"), 2, "ModelError", "demo_net")


def test_a_budget_that_cannot_be_met(gracile: Any, recipe: Any) -> None:
    written = recipe(steps="[{step: prune, budget: {macs: 0.0001}}]")
    ended = gracile("compress", written, "--out", "out", "--set", "measure.reference_int8=false")
    assert ended.code == 2
    assert "BudgetError" in ended.err
    assert not Path("out/run.json").exists()


def test_an_empty_folder_of_images(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    written = recipe(data=f"{{spec: 'images:{tmp_path / 'photos'}'}}")
    refuse(gracile, written, 2, "DataError", "photos", "empty")


def test_a_corrupt_image(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"photos/{index % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / f"photos/{index % 2}/{index}.png")
    (tmp_path / "photos/0/bad.png").write_bytes(b"not a picture")
    written = recipe(data=f"{{spec: 'images:{tmp_path / 'photos'}', options: {{size: 8}}}}")
    refuse(gracile, written, 2, "DataError", "bad.png")


def test_a_data_set_for_another_model(gracile: Any, recipe: Any) -> None:
    refuse(gracile, recipe(model="{spec: 'gracile:lenet'}"), 2, "ModelError", "(1, 8, 8)")


def test_a_misspelt_key(gracile: Any, recipe: Any) -> None:
    refuse(
        gracile,
        recipe(steps="[{step: export, flie: a.onnx}]"),
        2,
        "r.yaml:4, steps[0].flie",
        "Did you mean file?",
    )
    assert not Path("out").exists()


def test_a_model_of_two_inputs(gracile: Any, recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BRANCH.replace("forward(self, x)", "forward(self, x, mask)"))
    refuse(gracile, recipe(model="{spec: 'net.py:build'}"), 2, "ModelError", "missing 1 required", "'mask'")
