"""Backward elimination against refits from scratch and against all subsets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.prune.criteria.elimination import Fitted, Reader, eliminate

UNITS, TAPS = 5, 2
PULL = 1e-9


def case(seed: int, outputs: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(60, UNITS * TAPS)) @ draw.normal(size=(UNITS * TAPS, UNITS * TAPS))
    return np.c_[x, np.ones(60)], draw.normal(size=(60, outputs)), draw.uniform(0.1, 2, size=outputs)


def reader(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Reader:
    index = torch.arange(UNITS * TAPS).view(UNITS, TAPS)
    xx, xy = torch.from_numpy(x.T @ x), torch.from_numpy(x.T @ y)
    return Reader(Fitted.of(xx, xy, PULL), torch.from_numpy(weight), index)


def error(x: np.ndarray, y: np.ndarray, weight: np.ndarray, kept: tuple[int, ...]) -> float:
    """Weighted squared error of a refit on the kept units, the slow way."""
    columns = [c for u in kept for c in (u * TAPS, u * TAPS + 1)] + [UNITS * TAPS]
    fitted = np.linalg.lstsq(x[:, columns], y, rcond=None)[0]
    return float((((y - x[:, columns] @ fitted) ** 2).sum(0) * weight).sum())


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_rises_are_those_of_refits_and_each_step_is_the_best_one(seed) -> None:
    x, y, weight = case(seed)
    order, rises = eliminate([reader(x, y, weight)], UNITS)
    assert sorted(order) == list(range(UNITS))
    kept = tuple(range(UNITS))
    for unit, rise in zip(order[:-1], rises[:-1], strict=True):
        before = error(x, y, weight, kept)
        each = {u: error(x, y, weight, tuple(k for k in kept if k != u)) - before for u in kept}
        assert rise == pytest.approx(each[unit], rel=1e-4, abs=1e-6)
        assert each[unit] <= min(each.values()) * (1 + 1e-6) + 1e-9
        kept = tuple(k for k in kept if k != unit)
    assert rises[-1] == np.inf


@pytest.mark.parametrize("seed", range(10))
def test_it_is_close_to_the_best_of_all_subsets(seed) -> None:
    x, y, weight = case(seed)
    order, _ = eliminate([reader(x, y, weight)], UNITS)
    ours = error(x, y, weight, tuple(sorted(order[2:])))
    every = [error(x, y, weight, kept) for kept in itertools.combinations(range(UNITS), 3)]
    assert ours <= 1.1 * min(every)


def test_losses_of_several_readers_are_added() -> None:
    (x1, y1, w1), (x2, y2, w2) = case(1), case(2, outputs=4)
    order, rises = eliminate([reader(x1, y1, w1), reader(x2, y2, w2)], UNITS)
    every, kept = tuple(range(UNITS)), tuple(sorted(order[1:]))
    wanted = error(x1, y1, w1, kept) + error(x2, y2, w2, kept)
    wanted -= error(x1, y1, w1, every) + error(x2, y2, w2, every)
    assert rises[0] == pytest.approx(wanted, rel=1e-5)


def test_units_that_others_express_cost_nothing() -> None:
    x, y, weight = case(3)
    x[:, 0:2] = x[:, 4:6] @ np.array([[1.0, 2.0], [3.0, 1.0]])
    order, rises = eliminate([reader(x, y, weight)], UNITS)
    assert order[0] in (0, 2)
    assert rises[0] < 1e-5 < rises[1]


def test_columns_that_others_fill_are_refitted_too() -> None:
    x, y, weight = case(4)
    xx, xy = torch.from_numpy(x.T @ x), torch.from_numpy(x.T @ y)
    index = torch.arange(6).view(3, TAPS)  # the last two units belong to another group
    order, rises = eliminate([Reader(Fitted.of(xx, xy, PULL), torch.from_numpy(weight), index)], 3)
    for step in (1, 2):
        kept = tuple(u for u in range(UNITS) if u not in order[:step])
        wanted = error(x, y, weight, kept) - error(x, y, weight, tuple(range(UNITS)))
        assert sum(rises[:step]) == pytest.approx(wanted, rel=1e-4)


def test_of_many_units_the_cheapest_go_together_and_the_rest_one_by_one(monkeypatch) -> None:
    draw = np.random.default_rng(0)
    x = np.c_[draw.normal(size=(900, 200)), np.ones(900)]
    truth = np.linspace(0.01, 2, 201)[:, None]
    xx, xy = torch.from_numpy(x.T @ x), torch.from_numpy(x.T @ x @ truth)
    index = torch.arange(200)[:, None]

    def run() -> list[int]:
        return eliminate([Reader(Fitted.of(xx, xy, PULL), torch.ones(1), index)], 200)[0]

    together = run()
    monkeypatch.setattr("gracile.prune.criteria.elimination.ONE_BY_ONE", 10**9)
    alone = run()
    assert sorted(together) == sorted(alone) == list(range(200))
    assert len(set(together[:100]) & set(alone[:100])) >= 97
