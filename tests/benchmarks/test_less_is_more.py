"""Rows from cells made by hand; cells that are kept are not run again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import less_is_more
from benchmarks.less_is_more import NETS, RECIPES, cells, rows_of
from gracile.pipeline import load_recipe


def cell(gone: float, error: float) -> dict[str, Any]:
    return {"gone": gone, "error": error, "params_before": 100, "params_after": 4}


@pytest.fixture
def parsed(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        nets="lenet-mnist",
        seeds=2,
        plain=True,
        overrides=[],
        keep=tmp_path / "k" / "keep.jsonl",
        data_root=None,
    )


def test_rows_are_means_without_the_plain_cells() -> None:
    entries = [
        {"net": "lenet-mnist", "seed": seed, "plain": plain, **cell(gone, error)}
        for seed, plain, gone, error in ((0, False, 96, 0.8), (1, False, 95, 0.9), (0, True, 0, 0.5))
    ]
    gone, error = rows_of(entries)
    assert (gone.value, gone.n, gone.must, gone.ok) == (95.5, 2, ">= 95.0", True)
    assert (error.value, error.must, error.ok) == (pytest.approx(0.85), "<= 0.93", True)
    assert gone.spread is not None
    assert gone.spread[0] < 95 < gone.spread[1]


def test_the_bars_hold() -> None:
    entries = [{"net": "cifar-quick", "seed": 0, "plain": False, **cell(50.0, 27.2)}]
    assert [row.ok for row in rows_of(entries)] == [False, False]


def test_it_goes_on_after_an_interrupt(parsed: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []

    def one(net: Any, seed: int, plain: bool, *rest: Any) -> dict[str, Any]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append((seed, plain))
        return cell(95.0 + seed, 0.9)

    monkeypatch.setattr(less_is_more, "one", one)
    with pytest.raises(KeyboardInterrupt):
        cells(parsed)
    assert asked == [(0, False), (0, True)]
    asked.clear()
    found = cells(parsed)
    assert asked == [(1, False), (1, True)]
    assert [(e["seed"], e["plain"]) for e in found] == [(0, False), (0, True), (1, False), (1, True)]
    assert len(parsed.keep.read_text().splitlines()) == 4
    assert json.loads(parsed.keep.read_text().splitlines()[0])["result"] == cell(95.0, 0.9)


@pytest.mark.parametrize("name", NETS)
def test_every_recipe_reduces_and_stops_before_the_end(name: str) -> None:
    (step,) = load_recipe(RECIPES / f"{NETS[name].recipe}.yaml").steps
    part = step.less_is_more  # type: ignore[attr-defined]
    assert part.stop is None or part.stop < step.epochs  # type: ignore[attr-defined]
    plain = load_recipe(RECIPES / f"{NETS[name].recipe}.yaml", ["steps.train.less_is_more=null"])
    assert plain.steps[0].less_is_more is None  # type: ignore[attr-defined]
