"""The knapsack keeps both bounds and comes near the best of all choices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.errors import BudgetError
from gracile.prune.knapsack import Item, solve


def items(seed: int, groups: int = 5, widths: int = 4) -> list[Item]:
    """Convex errors, times with a step that does not pay."""
    draw = np.random.default_rng(seed)
    made = []
    for g in range(groups):
        errors = np.concatenate([[0.0], np.cumsum(np.sort(draw.random(widths - 1)))])
        times = np.sort(draw.random(widths) + 0.5)[::-1].copy()
        times[1] = times[0] * 1.2  # a little narrower is slower
        counts = tuple(range(0, 2 * widths, 2))
        saved = tuple(float(10 * c) for c in counts)
        made.append(Item(name=f"g{g}", counts=counts, errors=tuple(errors), times=tuple(times), saved=saved))
    return made


def total(chosen: Mapping[str, int], found: list[Item], what: str) -> float:
    return sum(getattr(i, what)[i.counts.index(chosen[i.name])] for i in found)


def cost(chosen: Mapping[str, int]) -> int:
    return 1000 - 10 * sum(chosen.values())


def best(found: list[Item], time: float, limit: int) -> float:
    """By trying everything."""
    errors = []
    for pick in itertools.product(*(i.counts for i in found)):
        chosen = {i.name: c for i, c in zip(found, pick, strict=True)}
        if total(chosen, found, "times") <= time and cost(chosen) <= limit:
            errors.append(total(chosen, found, "errors"))
    return min(errors)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), share=st.floats(0.3, 1.0), macs=st.floats(0.75, 1.0))
def test_both_bounds_hold_and_no_two_changes_are_better(seed: int, share: float, macs: float) -> None:
    found = items(seed)
    least = sum(min(i.times) for i in found)
    time = least + share * (sum(max(i.times) for i in found) - least)
    limit = int(macs * 1000)
    chosen = solve(found, time=time, cost=cost, limit=limit)
    assert total(chosen, found, "times") <= time + 1e-6
    assert cost(chosen) <= limit
    error = total(chosen, found, "errors")
    assert error >= best(found, time, limit) - 1e-9
    for one, two in itertools.combinations(found, 2):
        for a, b in itertools.product(one.counts, two.counts):
            other = {**chosen, one.name: a, two.name: b}
            if total(other, found, "times") <= time and cost(other) <= limit:
                assert total(other, found, "errors") >= error - 1e-9


def test_the_error_is_near_the_least() -> None:
    gaps = []
    for seed in range(60):
        found = items(seed)
        least = sum(min(i.times) for i in found)
        time = least + 0.4 * (sum(max(i.times) for i in found) - least)
        chosen = solve(found, time=time, cost=cost, limit=850)
        gaps.append(total(chosen, found, "errors") / max(best(found, time, 850), 1e-9) - 1)
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.02
    assert np.mean(np.array(gaps) < 1e-9) > 0.7


def test_a_step_that_does_not_pay_is_not_taken() -> None:
    step = Item(name="a", counts=(0, 1, 2), errors=(0, 0.1, 1), times=(2, 2.5, 1), saved=(0, 0, 0))
    assert solve([step], time=2.2, cost=lambda c: 0, limit=0) == {"a": 0}
    assert solve([step], time=1.5, cost=lambda c: 0, limit=0) == {"a": 2}


def test_savings_that_overlap_are_corrected_by_the_true_cost() -> None:
    """Two neighbours: the layer between them costs the product of what both keep."""
    pair = [
        Item(name=n, counts=tuple(range(10)), errors=tuple(i**2 for i in range(10)), times=(1.0,) * 10,
             saved=tuple(10.0 * i for i in range(10)))
        for n in "ab"
    ]  # fmt: skip
    chosen = solve(pair, time=2, cost=lambda c: (10 - c["a"]) * (10 - c["b"]), limit=25)
    assert (10 - chosen["a"]) * (10 - chosen["b"]) <= 25
    assert max(chosen.values()) <= 6


def test_bounds_that_cannot_be_kept_are_refused_with_the_nearest() -> None:
    found = items(0)
    with pytest.raises(BudgetError, match="is the least measured"):
        solve(found, time=0.1, cost=cost, limit=1000)
    with pytest.raises(BudgetError, match="is the fewest"):
        solve(found, time=100, cost=cost, limit=10)
    both = [Item(name="a", counts=(0, 1), errors=(0, 1), times=(1, 2), saved=(0, 10))]
    with pytest.raises(BudgetError, match="keep both bounds"):
        solve(both, time=1.5, cost=lambda c: 20 - 10 * c["a"], limit=15)
