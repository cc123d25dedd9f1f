"""Paired comparison against slow, obvious versions."""

from __future__ import annotations

from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from gracile.errors import BadArgument
from gracile.measure import compare, difference_interval


def arrays(both: int, only_before: int, only_after: int, neither: int) -> tuple[np.ndarray, ...]:
    """Predictions of two models with these counts; 0 is right."""
    before = np.repeat([0, 0, 1, 1], [both, only_before, only_after, neither])
    after = np.repeat([0, 1, 0, 2], [both, only_before, only_after, neither])
    return before, after, np.zeros_like(before)


counts = st.integers(0, 30)


@given(counts, counts, counts, counts)
def test_counts_and_exact_mcnemar_by_hand(both: int, b: int, c: int, neither: int) -> None:
    n = both + b + c + neither
    if n == 0:
        return
    result = compare(*arrays(both, b, c, neither))
    assert (result.only_before_right, result.only_after_right, result.n) == (b, c, n)
    assert result.difference == pytest.approx(100 * (c - b) / n)
    assert result.agreement == pytest.approx(100 * both / n)
    differing = b + c
    tail = sum(comb(differing, i) for i in range(min(b, c) + 1)) / 2**differing
    assert result.p_value == pytest.approx(min(1.0, 2 * tail))
    assert result.low - 1e-9 <= result.difference <= result.high + 1e-9


def score_by_search(b: int, c: int, n: int, d: float) -> float:
    """Tango's statistic with the constrained maximum of the likelihood found by search, no formula.

    ``b``, ``c``: only after, only before right; ``p_b = q + d``, ``p_c = q``.
    """

    def loss(q: float) -> float:
        cells = ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d))
        return -sum(count * log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -d), (1 - d) / 2
    q = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x)
    return (b - c - n * d) / sqrt(n * (2 * q + d - d * d))


@settings(max_examples=40)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(10, 200))
def test_ends_are_where_the_searched_score_reaches_the_quantile(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    low, high = difference_interval(c, b, n)
    assert score_by_search(b, c, n, low) == pytest.approx(1.959964, abs=2e-3)
    assert score_by_search(b, c, n, high) == pytest.approx(-1.959964, abs=2e-3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_interval_holds_zero_where_mcnemars_score_test_accepts(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    if b + c == 0:
        return
    low, high = difference_interval(c, b, n)
    z = abs(b - c) / sqrt(b + c)
    if abs(z - 1.959964) > 1e-6:
        assert (low <= 0 <= high) == (z < 1.959964)


def test_swapping_the_models_mirrors_the_interval() -> None:
    low, high = difference_interval(12, 3, 200)
    assert difference_interval(3, 12, 200) == pytest.approx((-high, -low), abs=1e-9)


def test_no_difference_on_few_examples_still_leaves_doubt() -> None:
    widths = [difference_interval(0, 0, n)[1] for n in (10, 100, 1000)]
    z2 = 1.959964**2
    assert widths == pytest.approx([z2 / (n + z2) for n in (10, 100, 1000)], abs=1e-6)


def test_extremes_stay_inside() -> None:
    assert difference_interval(0, 20, 20)[1] == 1
    assert difference_interval(20, 0, 20)[0] == -1
    low, high = difference_interval(0, 1, 1)
    assert -1 <= low < high <= 1


def test_coverage_by_simulation() -> None:
    """At the level of a deployed int8 model: 2 % of 500 images change sides, 60 % of them for the worse."""
    random = np.random.default_rng(0)
    n, cells = 500, [0.012, 0.008, 0.98]
    cases, times = np.unique(random.multinomial(n, cells, size=4000)[:, :2], axis=0, return_counts=True)
    hits = 0
    for (worse, better), count in zip(cases.tolist(), times.tolist(), strict=True):
        low, high = difference_interval(worse, better, n)
        hits += count * (low <= cells[1] - cells[0] <= high)
    assert 0.935 < hits / 4000 < 0.98


def test_the_lengths_must_be_the_same() -> None:
    with pytest.raises(BadArgument, match=r"found before \(2,\), after \(3,\), labels \(2,\)"):
        compare(np.zeros(2, int), np.zeros(3, int), np.zeros(2, int))
