"""The rows of the main job from a record made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.main_job import RECIPE, details, rows
from gracile.pipeline import load_recipe
from gracile.records import Headline, Proof, Ratio, Run, Speed, StepRecord


def _ratio(candidate: str, reference: str, ratio: float, batch: int = 128) -> Ratio:
    return Ratio(
        candidate=candidate,
        reference=reference,
        batch=batch,
        ratio=ratio,
        low=ratio - 1,
        high=ratio + 1,
        meaningful=True,
    )


RATIOS = (
    _ratio("compressed in ort", "original in torch", 5.0),
    _ratio("compressed in openvino", "original in torch", 9.0),
    _ratio("compressed in openvino", "original in torch", 99.0, batch=1),
    _ratio("compressed in openvino", "original in openvino", 77.0),
    _ratio("int8 only in openvino", "original in torch", 88.0),
)
SPEED = Speed(
    model="compressed",
    runtime="ort",
    batch=128,
    runs=15,
    images_per_s=900.0,
    images_per_s_low=890.0,
    images_per_s_high=910.0,
    latency_ms=142.0,
    latency_ms_low=141.0,
    latency_ms_high=143.0,
)
RUN = Run(
    name="r",
    recipe={},
    versions={},
    hardware={},
    seed=0,
    before=Headline(accuracy=92.6, n=1000, macs=2100, params=10, size_bytes=4000, images_per_s=100),
    after=Headline(accuracy=92.0, n=1000, macs=1000, params=5, size_bytes=1000, images_per_s=900),
    comparison=None,
    steps=(StepRecord(name="tune", kind="tune", seconds=1.0, detail={"epochs": [{}, {}, {}]}),),
    artifacts=(),
    skips=(),
    proofs=(Proof(name="permute", passed=True, error=0.0, tolerance=1e-4),),
    speeds=(SPEED,),
    ratios=RATIOS,
    verdict=(),
    plan={},
)


def _values(run: Run) -> dict[str, Any]:
    return {row.id.removeprefix("main_job."): (row.value, row.ok) for row in rows(run)}


def test_the_rows_are_the_records_figures() -> None:
    assert _values(RUN) == {
        "accuracy": (92.0, True),
        "file_share_of_float_onnx": (0.25, True),
        "speedup_over_eager_float": (9.0, True),
        "macs_divided_by": (2.1, True),
        "tuning_epochs": (3, True),
        "proofs_passed": (100.0, True),
    }
    accuracy = rows(RUN)[0]
    assert accuracy.spread is not None
    assert accuracy.spread[0] < 92.0 < accuracy.spread[1]


def test_a_worse_run_does_not_pass() -> None:
    worse = replace(
        RUN,
        after=replace(RUN.after, accuracy=91.7, size_bytes=1300, macs=1001),
        ratios=RATIOS[:1],
        steps=RUN.steps * 2,
        proofs=(replace(RUN.proofs[0], passed=False),),
    )
    assert [ok for _, ok in _values(worse).values()] == [False] * 6


def test_a_speed_that_was_not_measured_does_not_pass() -> None:
    assert _values(replace(RUN, ratios=()))["speedup_over_eager_float"] == (None, False)


def test_every_row_has_a_bar_and_every_speed_is_listed() -> None:
    assert all(row.must for row in rows(RUN))
    assert [entry["images a second"] for entry in details(RUN)] == [900.0]


def test_the_recipe_keeps_to_three_epochs() -> None:
    recipe = load_recipe(RECIPE)
    trained = [step.model_dump()["epochs"] for step in recipe.steps if step.step in ("tune", "train")]
    assert sum(trained) <= 3
