"""Greedy joining against a plain loop."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gracile.prune.criteria.nearest import Join, join_nearest, scores_of

ROWS = arrays(np.float64, st.tuples(st.integers(2, 7), st.integers(1, 3)), elements=st.integers(-4, 4))


def distances(rows: dict[int, np.ndarray], p: float) -> dict[tuple[int, int], float]:
    names = sorted(rows)
    return {(a, b): float(np.linalg.norm(rows[a] - rows[b], ord=p)) for a in names for b in names if a < b}


@settings(max_examples=40)
@given(rows=ROWS, p=st.sampled_from([1.0, 2.0]), mean=st.booleans())
def test_each_step_joins_two_of_the_nearest(rows: np.ndarray, p: float, mean: bool) -> None:
    left = dict(enumerate(rows))
    count = dict.fromkeys(left, 1)
    for join in join_nearest(torch.from_numpy(rows), p, mean=mean):
        every = distances(left, p)
        pair = (min(join.goes, join.into), max(join.goes, join.into))
        assert join.distance <= min(every.values()) + 1e-9
        assert abs(every[pair] - join.distance) < 1e-9
        goes = left.pop(join.goes)
        if mean:
            a, b = count.pop(join.goes), count[join.into]
            assert a <= b
            left[join.into] = (a * goes + b * left[join.into]) / (a + b)
            count[join.into] = a + b
        else:
            assert np.linalg.norm(goes, ord=p) <= np.linalg.norm(left[join.into], ord=p) + 1e-9
    assert len(left) == 1


def test_equal_rows_are_exactly_at_distance_zero() -> None:
    rows = torch.randn(6, 40, dtype=torch.float64) * 1e3
    rows[4] = rows[1]
    first = join_nearest(rows, 2, mean=True)[0]
    assert {first.goes, first.into} == {1, 4}
    assert first.distance == 0


@given(steps=st.lists(st.floats(0, 10), min_size=1, max_size=8))
def test_scores_rise_along_the_order_of_removal(steps: list[float]) -> None:
    joins = tuple(Join(i, len(steps), d) for i, d in enumerate(steps))
    scores = scores_of(joins, len(steps) + 1)
    assert scores.argsort().tolist() == list(range(len(steps) + 1))
    assert (np.diff(scores) > 0).all()
    assert np.isinf(scores[-1])
