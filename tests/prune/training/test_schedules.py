"""Schedules against their formulas; the moments of a pace against counting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.prune import SCHEDULES, Cubic, Geometric, Linear, OneShot, Pace, Rounds, Schedule
from gracile.prune.training.schedules import share_at

ALL: dict[str, Schedule] = {
    **SCHEDULES,
    "geometric": Geometric(sparsity=0.9),
    "rounds": Rounds(n=4, shape=Cubic()),
}


@pytest.mark.parametrize("name", sorted(ALL))
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_shares_never_fall_and_end_at_one(name: str, a: float, b: float) -> None:
    schedule = ALL[name]
    low, high = sorted((a, b))
    assert 0 <= schedule(low) <= schedule(high) + 1e-12 <= 1 + 2e-12
    assert schedule(1.0) == pytest.approx(1.0)


def test_cubic_is_zhu_and_guptas_equation() -> None:
    start, final, n = 0.1, 0.8, 10
    for i in range(n + 1):
        wanted = final + (start - final) * (1 - i / n) ** 3
        assert start + (final - start) * Cubic()(i / n) == pytest.approx(wanted)


def test_geometric_removes_the_same_share_each_time() -> None:
    left = [1 - 0.9 * Geometric(sparsity=0.9)(i / 5) for i in range(6)]
    assert all(b / a == pytest.approx(0.1 ** (1 / 5)) for a, b in itertools.pairwise(left))


def test_rounds_begin_at_once_and_wait_in_between() -> None:
    n, k = 3, 4  # three rounds, four epochs behind each
    shares = [Rounds(n=n)(epoch / (n * k)) for epoch in range(n * k)]
    assert shares == pytest.approx([i // k / n + 1 / n for i in range(n * k)])
    assert [Rounds(n=1)(p) for p in (0.0, 0.5, 1.0)] == [OneShot()(0.0)] * 3


@given(st.integers(0, 20), st.integers(0, 30), st.integers(1, 9), st.integers(0, 80))
def test_moments_against_counting(begin: int, length: int, every: int, step: int) -> None:
    pace = Pace(begin=begin, end=begin + length, every=every)
    moments = sorted({*range(begin, begin + length, every), begin + length})
    past = [m for m in moments if m <= step]
    assert pace.moment(step) == (past[-1] if past else None)
    assert pace.progress(moments[-1]) == 1
    assert all(0 <= pace.progress(m) <= 1 for m in moments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pace(begin=3, end=2),
        lambda: Pace(begin=-1, end=2),
        lambda: Pace(end=2, every=0),
        lambda: Rounds(n=0),
        lambda: Geometric(sparsity=1.0),
        lambda: Geometric(sparsity=0.0),
        lambda: share_at(lambda p: 2 * p, 0.75),
    ],
)
def test_nonsense_is_refused(make) -> None:
    with pytest.raises(BadArgument):
        make()
    assert share_at(Linear(), 0.75) == 0.75
