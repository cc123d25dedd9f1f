"""Timing on a clock that the tests move, and once on the real one."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.measure import Candidate, bench
from gracile.measure.speed import ratio


class FakeClock:
    """Seconds that pass only when a fake model works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, seconds_per_image: float, noise: float = 0.0) -> Candidate:
        random = np.random.default_rng(len(name))

        def run(images: np.ndarray) -> np.ndarray:
            self.order.append(name)
            self.now += seconds_per_image * len(images) * (1 + noise * random.uniform(-1, 1))
            return np.zeros((len(images), 2), np.float32)

        return Candidate(name=name, runtime="fake", model=run)


def test_figures_of_steady_models() -> None:
    clock = FakeClock()
    speeds, ratios = bench(
        [clock.model("slow", 0.010), clock.model("fast", 0.004)],
        inputs=(3, 2, 2),
        batches=[1, 8],
        runs=6,
        clock=clock,
    )
    assert [(s.model, s.runtime, s.batch, s.runs) for s in speeds] == [
        ("slow", "fake", 1, 6),
        ("fast", "fake", 1, 6),
        ("slow", "fake", 8, 6),
        ("fast", "fake", 8, 6),
    ]
    assert speeds[3].images_per_s == pytest.approx(250)
    assert speeds[3].latency_ms == pytest.approx(32)
    assert speeds[3].images_per_s_low == pytest.approx(250)
    assert [(r.candidate, r.reference, r.batch) for r in ratios] == [
        ("fast in fake", "slow in fake", 1),
        ("fast in fake", "slow in fake", 8),
    ]
    assert ratios[0].ratio == pytest.approx(2.5)
    assert ratios[0].meaningful


def test_candidates_take_turns() -> None:
    clock = FakeClock()
    bench(
        [clock.model(name, 0.1) for name in "abc"],
        inputs=(1,),
        batches=[1],
        runs=6,
        warmup=2,
        min_seconds=0.05,
        clock=clock,
    )
    warmed_up = 3 * (2 + 1)
    assert "".join(clock.order[warmed_up:]) == "aabbcc" * 6  # one untimed and one timed call each


def test_short_batches_are_repeated_and_the_untimed_call_is_not_counted() -> None:
    clock = FakeClock()
    speeds, _ = bench(
        [clock.model("a", 0.001)], inputs=(1,), batches=[2], runs=6, warmup=1, min_seconds=0.05, clock=clock
    )
    assert len(clock.order) == 2 + 6 * (1 + 25)
    assert speeds[0].latency_ms == pytest.approx(2)


def test_a_slow_minute_hits_all_and_leaves_the_ratio() -> None:
    clock = FakeClock()
    slow_from = 40

    def model(name: str, seconds: float) -> Candidate:
        def run(images: np.ndarray) -> np.ndarray:
            clock.order.append(name)
            clock.now += seconds * (3 if len(clock.order) > slow_from else 1)
            return np.zeros((len(images), 2), np.float32)

        return Candidate(name=name, runtime="fake", model=run)

    speeds, ratios = bench(
        [model("a", 0.02), model("b", 0.01)], inputs=(1,), batches=[1], runs=10, min_seconds=0.0, clock=clock
    )
    assert speeds[0].latency_ms_high == pytest.approx(60)
    assert (ratios[0].low, ratios[0].high) == pytest.approx((2, 2))
    assert ratios[0].meaningful


def test_noise_makes_a_ratio_meaningless_and_says_so() -> None:
    clock = FakeClock()
    _, ratios = bench(
        [clock.model("a", 0.01, noise=0.9), clock.model("bb", 0.01, noise=0.9)],
        inputs=(1,),
        batches=[1],
        runs=10,
        min_seconds=0.0,
        clock=clock,
    )
    assert not ratios[0].meaningful
    assert "which of the two is faster can't be told" in ratios[0].warning


def test_a_wide_interval_is_no_figure_even_away_from_one() -> None:
    wide = ratio("a", "b", 1, [2.0, 2.5, 3.0, 3.5, 4.0, 4.5])
    assert not wide.meaningful
    assert "3.25x of b, 95 % interval 2.00 to 4.50: too wide to be a figure" in wide.warning
    narrow = ratio("a", "b", 1, [2.0, 2.05, 2.1, 2.1, 2.05, 2.0])
    assert narrow.meaningful
    assert narrow.warning == ""


def test_given_images_are_used_and_repeated() -> None:
    seen: list[np.ndarray] = []

    def run(images: np.ndarray) -> np.ndarray:
        seen.append(images.copy())
        return np.zeros((len(images), 2), np.float32)

    given = torch.arange(3.0).reshape(3, 1)
    bench(
        [Candidate(name="a", runtime="mine", model=run)],
        inputs=given,
        batches=[2, 7],
        runs=6,
        min_seconds=0.0,
    )
    assert seen[0].ravel().tolist() == [0, 1]
    assert seen[-1].ravel().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert seen[-1].dtype == np.float32


def test_random_images_come_from_the_seed() -> None:
    seen: list[np.ndarray] = []

    def run(images: np.ndarray) -> np.ndarray:
        seen.append(images.copy())
        return np.zeros((len(images), 2), np.float32)

    candidate = Candidate(name="a", runtime="mine", model=run)
    for seed in (1, 1, 2):
        bench([candidate], inputs=(3, 4), batches=[2], runs=6, min_seconds=0.0, seed=seed)
    per_bench = len(seen) // 3
    assert np.array_equal(seen[0], seen[per_bench])
    assert not np.array_equal(seen[0], seen[-1])


def test_real_runtimes_side_by_side(linear_onnx: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    steps: list[tuple[int, int]] = []
    speeds, ratios = bench(
        [
            Candidate(name="module", runtime="torch", model=module),
            Candidate(name="file", runtime="ort", model=linear_onnx),
        ],
        inputs=(3, 8, 8),
        batches=[1, 4],
        runs=6,
        min_seconds=0.0,
        threads=1,
        on_run=lambda done, total: steps.append((done, total)),
    )
    assert len(speeds) == 4
    assert len(ratios) == 2
    assert steps[0] == (1, 24)
    assert steps[-1] == (24, 24)
    for speed in speeds:
        assert 0 < speed.images_per_s_low <= speed.images_per_s <= speed.images_per_s_high
        assert speed.latency_ms_low <= speed.latency_ms <= speed.latency_ms_high
        assert speed.images_per_s * speed.latency_ms == pytest.approx(1000 * speed.batch)
    assert gc.isenabled()


def test_non_finite_outputs() -> None:
    bad = Candidate(name="a", runtime="mine", model=lambda x: np.full((len(x), 2), np.nan, np.float32))
    with pytest.raises(NonFiniteError, match="a in mine: wanted finite outputs"):
        bench([bad], inputs=(1,), batches=[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 5}, "runs: wanted at least 6, .*found runs=5"),
        ({"warmup": 0}, "warmup: wanted at least 1"),
        ({"batches": [0]}, "batches: wanted sizes of at least 1"),
        ({"batches": []}, "batches: wanted sizes of at least 1"),
        ({"min_seconds": -1.0}, "min_seconds: wanted 0 or more"),
        ({"inputs": np.zeros((0, 3))}, "inputs: wanted images"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        bench([FakeClock().model("a", 1.0)], **{"inputs": (1,), **arguments})  # type: ignore[arg-type]


def test_candidates_must_differ() -> None:
    clock = FakeClock()
    with pytest.raises(BadArgument, match="candidates: wanted one or more with different names"):
        bench([clock.model("a", 1.0), clock.model("a", 1.0)], inputs=(1,))
    with pytest.raises(BadArgument, match="candidates: wanted one or more"):
        bench([], inputs=(1,))


def test_candidates_that_fit_no_runtime(linear_onnx: Path) -> None:
    with pytest.raises(
        BadArgument, match=r"runtime: wanted torch or ort or openvino, found 'orrt'\. Did you mean ort"
    ):
        Candidate(name="a", runtime="orrt", model=linear_onnx)
    with pytest.raises(BadArgument, match=r"wanted a module for torch, .* found a Linear for ort"):
        Candidate(name="a", runtime="ort", model=nn.Linear(1, 1))
    with pytest.raises(BadArgument, match="found a PosixPath for torch"):
        Candidate(name="a", runtime="torch", model=linear_onnx)
