"""The study's design and figure; its regression is tested beside it."""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks import influence
from benchmarks.influence import DOCUMENT, FACTORS, RECIPE, design, fits, overrides, rows_of, run
from gracile.pipeline import load_recipe


def test_settings_cover_the_documents_ranges() -> None:
    points = design(list(DOCUMENT), 50, seed=0)
    assert {p["every"] for p in points} == {1.0, 2.0}
    assert min(p["epochs"] for p in points) == 10
    assert max(p["epochs"] for p in points) == 40
    assert all(0.15 <= p["ratio"] <= 0.25 for p in points)
    assert points == design(list(DOCUMENT), 50, seed=0)
    assert [FACTORS["epochs"].coded(e) for e in (10, 25, 40)] == [-1, 0, 1]


def test_a_point_makes_a_recipe() -> None:
    point = {"epochs": 20.0, "ratio": 0.2, "every": 1.0, "lr": 0.02, "stop": 0.6}
    (step,) = load_recipe(RECIPE, overrides(point, 3, ["steps.train.train_images=10"])).steps
    part: Any = step.less_is_more  # type: ignore[attr-defined]
    assert (part.ratio, part.every, part.stop) == (0.2, 1, 12)
    assert (step.lr, step.epochs, step.train_images) == (0.02, 20, 10)  # type: ignore[attr-defined]


def test_from_runs_to_rows_and_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def one(point: dict[str, float], seed: int, *rest: Any) -> dict[str, Any]:
        asked.append(seed)
        coded = {name: FACTORS[name].coded(value) for name, value in point.items()}
        reduction = 80 + 5 * coded["ratio"] - 3 * coded["every"] + 2 * coded["epochs"]
        return {"reduction": reduction, "accuracy": 99 - coded["ratio"] + coded["every"], "n": 9}

    monkeypatch.setattr(influence, "one", one)
    parsed = argparse.Namespace(
        factors=",".join(DOCUMENT), order=3, runs=50, seed=0, overrides=[], data_root=None,
        keep=tmp_path / "keep.jsonl", figure=tmp_path / "a.svg",
    )  # fmt: skip
    rows, details = run(parsed)
    assert all(row.ok for row in rows)
    assert {row.id: round(row.value or 0, 6) for row in rows}["influence.ratio_on_reduction"] == 5
    assert len(asked) == 50
    assert run(parsed) == (rows, details)
    assert len(asked) == 50  # all were kept
    assert len(details) == 2 * 8 + 50
    picture = ET.parse(tmp_path / "a.svg")
    bars = [e for e in picture.iter() if e.tag.endswith("rect")]
    assert len(bars) == 1 + 2 * 7
    wrong = [entry | {"reduction": -entry["reduction"]} for entry in influence.study(parsed)]
    assert not all(row.ok for row in rows_of(fits(wrong, list(DOCUMENT), 3)))
