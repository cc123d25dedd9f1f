"""The last lines: what was gained and what was lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gracile.cli.show import console, gains, losses, ratio_table, show_run, speed_table
from gracile.records import COMPRESSED, ORIGINAL, Comparison, Headline, Ratio, Run, Speed, label

BEFORE = Headline(
    accuracy=99.0, n=400, macs=200, params=100, size_bytes=300, images_per_s=10.0, runtime="torch", batch=32
)
AFTER = replace(BEFORE, macs=100, size_bytes=100, images_per_s=90.0, runtime="ort")


@pytest.fixture
def run() -> Run:
    return Run(
        name="x", recipe={}, versions={}, hardware={}, seed=0, before=BEFORE, after=AFTER,
        comparison=Comparison(
            difference=-1.0, low=-2.0, high=0.1, p_value=0.1, only_before_right=5, only_after_right=1,
            agreement=98.0, n=400,
        ),
        steps=(), artifacts=(), skips=(), proofs=(), speeds=(), ratios=(), verdict=("one", "two"), plan={},
    )  # fmt: skip


def test_gains(run: Run) -> None:
    assert gains(run) == [
        "9.0x the images a second in ONNX Runtime",
        "a file 3.0x smaller",
        "2.0x fewer multiply-adds",
    ]


@pytest.mark.parametrize(
    ("low", "said"),
    [
        (1.2, "9.0x the images a second in ONNX Runtime (1.50x those of the original there)"),
        (0.9, "9.0x the images a second in ONNX Runtime (no clear difference from the original there)"),
    ],
)
def test_what_the_runtime_brought_is_told_from_what_the_compression_did(
    run: Run, low: float, said: str
) -> None:
    own = Ratio(
        candidate=label(COMPRESSED, "ort"), reference=label(ORIGINAL, "ort"), batch=32, ratio=1.5, low=low,
        high=1.8, meaningful=False,
    )  # fmt: skip
    other = replace(own, batch=1, ratio=3.0)
    assert gains(replace(run, ratios=(other, own)))[0] == said


@pytest.mark.parametrize(("low", "gained"), [(1.2, True), (0.9, False)])
def test_a_speed_that_the_interval_does_not_bear_out_is_no_gain(run: Run, low: float, gained: bool) -> None:
    for runtime in ("torch", "ort"):
        measured = Ratio(
            candidate=label(COMPRESSED, "ort"), reference=label(ORIGINAL, runtime), batch=32, ratio=9.0,
            low=low, high=18.0, meaningful=False,
        )  # fmt: skip
        found = replace(run, before=replace(BEFORE, runtime=runtime), ratios=(measured,))
        assert ("9.0x the images a second in ONNX Runtime" in gains(found)[0]) is gained


def test_what_shows_as_the_same_is_no_gain(run: Run) -> None:
    before = replace(BEFORE, macs=2000, size_bytes=3000)
    after = replace(BEFORE, macs=1999, size_bytes=2999, images_per_s=10.01)
    assert gains(replace(run, before=before, after=after)) == []


def test_names_in_brackets_are_shown(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    name = "net[v2] :cat:"
    speed = Speed(
        model=name, runtime="ort", batch=1, runs=6, images_per_s=1.0, images_per_s_low=1.0,
        images_per_s_high=1.0, latency_ms=1.0, latency_ms_low=1.0, latency_ms_high=1.0,
    )  # fmt: skip
    ratio = Ratio(candidate=name, reference="b", batch=1, ratio=1.0, low=1.0, high=1.0, meaningful=False)
    console().print(speed_table((speed,)))
    console().print(ratio_table((ratio,)))
    show_run(replace(run, notes=(name,), verdict=(name,)))
    assert capsys.readouterr().out.count(name) == 4


def test_no_gain(run: Run) -> None:
    assert gains(replace(run, after=BEFORE)) == []


def test_a_loss_within_the_noise_is_none(run: Run) -> None:
    assert losses(run) == ["nothing that shows on 400 test images"]


def test_losses_point_to_the_verdict(run: Run) -> None:
    assert run.comparison is not None
    fell = replace(run, comparison=replace(run.comparison, high=-0.2), verdict_worse=1)
    assert losses(fell) == ["1.0 points of accuracy"]
    assert losses(replace(fell, verdict_worse=2))[1] == "see the first lines of the verdict"
    assert losses(replace(run, verdict_worse=1)) == [
        "accuracy within the noise, but see the first lines of the verdict"
    ]
