"""``compress``, ``report`` and ``demo``: from a recipe to the file, the record and the page."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from gracile import pipeline
from gracile.cli.demo import free_folder
from gracile.pipeline import load_recipe, parse_recipe
from gracile.records import read_run

RECIPE = """\
name: short
model: {spec: "gracile:demo_net", options: {width: 4}}
data: {spec: digits}
steps: [{step: export}]
measure: {runtimes: [ort], batches: [2], runs: 6, threads: 1, test_images: 50}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.yaml").write_text(RECIPE)
    return Path("short.yaml")


def test_from_a_recipe_to_the_page(gracile: Any, recipe: Path) -> None:
    ended = gracile("compress", recipe, "--set", "measure.test_images=40")
    assert ended.code == 0, ended.err
    out = Path("runs/short")
    lines = ended.out.strip().splitlines()
    assert lines[-1] == f"The report: {out / 'report.html'}"
    assert lines[-2] == f"The file to deploy: {out / 'model.onnx'}"
    assert read_run(out).before.n == 40
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    again = gracile("report", out)
    assert again.code == 0
    assert (out / "report.html").read_text() == page
    refused = gracile("compress", recipe)
    assert refused.code == 2
    assert "--resume" in refused.err
    assert gracile("compress", recipe, "--set", "measure.test_images=40", "--resume").code == 0


def test_ctrl_c_says_how_to_go_on(gracile: Any, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.runner._Work, "carry_out", stop)
    ended = gracile("compress", recipe, "--out", "over here", "--set", "seed=3")
    assert ended.code == 1
    assert "gracile compress short.yaml --out 'over here' --set seed=3 --resume" in ended.err
    ended = gracile("demo", "--out", "over here", "--resume")
    assert "gracile demo --out 'over here' --resume" in ended.err


def test_report_of_something_else(gracile: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert gracile("report", tmp_path).code == 2
    assert gracile("report", tmp_path / "absent").code == 2


def test_the_demo_recipe_is_whole() -> None:
    text = (files("gracile.cli") / "recipes" / "demo.yaml").read_text(encoding="utf-8")
    recipe = parse_recipe(text)
    assert [step.step for step in recipe.steps] == ["train", "prune", "tune", "fold", "quantize", "export"]
    assert (recipe.model.spec, recipe.data.spec) == ("gracile:demo_net", "digits")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda p: p.stem
)
def test_recipes_that_come_with_the_project_are_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem
    assert yaml.safe_load(path.read_text())["description"]


def test_the_demo_takes_the_next_free_folder(tmp_path: Path) -> None:
    assert free_folder(tmp_path).name == "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_folder(tmp_path).name == "demo-3"
