"""Widths that pay: all candidates in a table, the fastest that meets the budget taken."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gracile import data, measure
from gracile.errors import BudgetError
from gracile.pipeline import widths
from gracile.pipeline.state import Bench, State
from gracile.pipeline.steps import PruneStep
from gracile.records import Speed


@pytest.fixture
def state() -> State:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return State(model=model.eval())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bundle = data.load_data("digits")
    images = bundle.calibration(4)
    return Bench(
        bundle=bundle, inputs=(images[:1],), images=images, seed=0, out=tmp_path,
        partial=tmp_path / "partial",
        done={}, restored=lambda name: pytest.fail(name), tick=lambda text, done, total: None,
        note=lambda text: None,
    )  # fmt: skip


def fake_speeds(monkeypatch: pytest.MonkeyPatch, images_per_s: dict[str, float]) -> list[str]:
    """Replace timing by known figures; gives the names of what would have been timed."""
    asked: list[str] = []
    real = inspect.signature(measure.bench)

    def bench(candidates: Any, **options: Any) -> tuple[tuple[Speed, ...], tuple[()]]:
        real.bind(candidates, **options)
        asked.extend(candidate.name for candidate in candidates)
        assert all(Path(candidate.model).stat().st_size > 0 for candidate in candidates)
        return tuple(known(candidate.name) for candidate in candidates), ()

    def known(name: str) -> Speed:
        value = images_per_s[name]
        return Speed(
            model=name, runtime="ort", batch=4, runs=6, images_per_s=value, images_per_s_low=value,
            images_per_s_high=value, latency_ms=1.0, latency_ms_low=1.0, latency_ms_high=1.0,
        )  # fmt: skip

    monkeypatch.setattr(measure, "bench", bench)
    return asked


def step(*multiples: int, macs: float = 0.7) -> PruneStep:
    return PruneStep.model_validate(
        {
            "step": "prune",
            "budget": {"macs": macs},
            "choose_round_to": multiples,
            "calibration": 8,
            "leave": ["last"],
        }
    )


def test_the_fastest_is_taken(state: State, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_speeds(monkeypatch, {"0": 100.0, "1": 90.0, "4": 120.0})
    plan, rows = widths.choose(step(1, 4), state, bench)
    assert asked == ["0", "1", "4"]
    assert [(row["round_to"], row["chosen"]) for row in rows] == [(0, False), (1, False), (4, True)]
    assert all(len(group.keep) % 4 == 0 for group in plan.groups)
    assert plan.macs_after <= 0.7 * plan.macs_before
    assert rows[2]["macs_kept"] == plan.macs_after / plan.macs_before
    assert [path.name for path in bench.out.iterdir()] == []  # candidates are not left behind


def test_a_multiple_that_cannot_meet_the_budget_is_listed(
    state: State, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_speeds(monkeypatch, {"0": 100.0, "1": 90.0})
    _, rows = widths.choose(step(1, 8), state, bench)
    assert [(row["round_to"], row["chosen"]) for row in rows] == [(0, False), (1, True), (8, False)]
    assert "cannot be met" in rows[-1]["why"]


def test_no_multiple_meets_the_budget(state: State, bench: Bench) -> None:
    with pytest.raises(BudgetError) as caught:
        widths.choose(step(8), state, bench)
    assert caught.value.where == "choose_round_to"
