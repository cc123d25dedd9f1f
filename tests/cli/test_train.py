"""``train``: from a recipe without weights to the weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
name: short
model: {spec: "gracile:demo_net", options: {width: 4}}
data: {spec: digits}
steps: [{step: train, epochs: 1, batch_size: 32, train_images: 64, bf16: false}]
measure: {test_images: 50}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.yaml").write_text(RECIPE)
    return Path("short.yaml")


def test_from_a_recipe_to_the_weights(gracile: Any, recipe: Path) -> None:
    ended = gracile("train", recipe)
    assert ended.code == 0, ended.err
    out = Path("runs/short")
    lines = ended.out.strip().splitlines()
    assert lines[-2:] == [f"The weights: {out / 'weights.safetensors'}", f"The report: {out / 'report.html'}"]
    page = (out / "report.html").read_text()
    assert "gracile train recipe.json" in page
    assert "weights before and after" in page
    assert gracile("train", recipe, "--resume").code == 0


def test_the_weights_are_those_of_the_model(gracile: Any, recipe: Path) -> None:
    assert gracile("train", recipe, "--out", "a").code == 0
    ended = gracile(
        "inspect", "gracile:demo_net", "--option", "width=4", "--weights", "a/weights.safetensors"
    )
    assert ended.code == 0, ended.err


def test_other_steps_are_for_compress(gracile: Any, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("}]\nmeasure", "}, {step: fold}]\nmeasure"))
    ended = gracile("train", recipe)
    assert ended.code == 2
    assert "gracile compress" in ended.err
