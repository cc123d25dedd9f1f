"""Accuracy and its interval."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.measure import accuracy


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_interval_is_wilsons_formula(case: tuple[int, int]) -> None:
    n, right = case
    predicted = (np.arange(n) >= right).astype(np.int64)
    result = accuracy(predicted, np.zeros(n, np.int64))
    z, p = 1.959963984540054, right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert result.percent == pytest.approx(100 * p)
    assert result.n == n
    assert (result.low, result.high) == pytest.approx(
        (100 * (middle - half), 100 * (middle + half)), abs=1e-9
    )


def test_the_length_of_both_must_be_the_same() -> None:
    with pytest.raises(BadArgument, match=r"found predicted \(3,\), labels \(4,\)"):
        accuracy(np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(BadArgument, match=r"found predicted \(3, 1\), labels \(3, 1\)"):
        accuracy(np.zeros((3, 1), int), np.zeros((3, 1), int))
    with pytest.raises(BadArgument, match=r"found predicted \(0,\)"):
        accuracy(np.zeros(0, int), np.zeros(0, int))
