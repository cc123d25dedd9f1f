"""The median's interval against counting."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest

from gracile.errors import BadArgument
from gracile.measure import median_ci


@pytest.mark.parametrize("n", [6, 7, 8, 15, 30, 101])
def test_coverage_is_at_least_the_level_and_the_next_narrower_one_is_not(n: int) -> None:
    middle, low, high = median_ci(list(range(1, n + 1)))
    k = int(low)
    assert high == n + 1 - k
    assert middle == (n + 1) / 2

    def coverage(k: int) -> float:
        return 1 - 2 * sum(comb(n, i) for i in range(k)) / 2**n

    assert coverage(k) >= 0.95 > coverage(k + 1)


def test_coverage_by_trying_every_side_of_the_median() -> None:
    """Each of 8 values lies below or above the true median with equal chance; go through all 256 cases."""
    hits = 0
    for sides in itertools.product([-1, 1], repeat=8):
        values = [side * (1 + 0.1 * i) for i, side in enumerate(sides)]
        _, low, high = median_ci(values)
        hits += low <= 0 <= high
    assert hits / 256 >= 0.95


def test_order_does_not_matter_and_one_wild_value_hardly() -> None:
    values = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0]
    shuffled = np.random.default_rng(0).permutation(values).tolist()
    assert median_ci(values) == median_ci(shuffled)
    assert median_ci([*values[:-1], 1000.0]) == median_ci(values)


@pytest.mark.parametrize(("n", "level", "fewest"), [(5, 0.95, 6), (0, 0.95, 6), (7, 0.99, 8), (4, 0.9, 5)])
def test_too_few_values(n: int, level: float, fewest: int) -> None:
    with pytest.raises(BadArgument, match=f"median_ci: wanted at least {fewest} values .*found {n}"):
        median_ci([1.0] * n, level)
    assert median_ci([1.0] * fewest, level) == (1.0, 1.0, 1.0)
