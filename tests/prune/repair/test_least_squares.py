"""Ridge regression from second moments, against numpy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gracile.prune.repair.least_squares import fit, ridge_of


def moments(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    ones = np.c_[x, np.ones(len(x))]
    return torch.from_numpy(ones.T @ ones), torch.from_numpy(ones.T @ y), ones


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), columns=st.integers(1, 5), outputs=st.integers(1, 3))
def test_without_pull_it_is_numpys_least_squares(seed, columns, outputs) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(40, columns)), draw.normal(size=(40, outputs))
    xx, xy, ones = moments(x, y)
    wanted = np.linalg.lstsq(ones, y, rcond=None)[0]
    found = fit(xx, xy, torch.from_numpy(draw.normal(size=wanted.shape)), 0.0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-8)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), pull=st.floats(1e-3, 1e3))
def test_with_pull_it_is_least_squares_with_rows_added(seed, pull) -> None:
    draw = np.random.default_rng(seed)
    x, y, towards = draw.normal(size=(20, 3)), draw.normal(size=(20, 2)), draw.normal(size=(4, 2))
    xx, xy, ones = moments(x, y)
    extra = np.sqrt(pull) * np.eye(4)[:3]
    wanted = np.linalg.lstsq(np.r_[ones, extra], np.r_[y, extra @ towards], rcond=None)[0]
    found = fit(xx, xy, torch.from_numpy(towards), pull)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-8)


def test_dependent_columns_give_the_exact_fit_nearest_to_the_weights_there() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(30, 3))
    x[:, 2] = x[:, 0] + x[:, 1]
    y = x @ np.array([[1.0], [2.0], [3.0]])
    xx, xy, ones = moments(x, y)
    towards = torch.zeros(4, 1, dtype=torch.float64)
    found = fit(xx, xy, towards, 0.0).numpy()
    np.testing.assert_allclose(ones @ found, y, atol=1e-6)
    np.testing.assert_allclose(found, np.linalg.pinv(ones) @ y, atol=1e-6)


def test_an_intercept_that_may_not_move_stays() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(30, 2)), draw.normal(size=(30, 1)) + 5
    xx, xy, _ = moments(x, y)
    towards = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    found = fit(xx, xy, towards, 0.0, intercept=False).numpy()
    assert found[-1] == 1.0
    np.testing.assert_allclose(found[:-1], np.linalg.lstsq(x, y - 1, rcond=None)[0], rtol=1e-6)


def test_the_pull_grows_where_rows_are_few() -> None:
    xx = torch.eye(11, dtype=torch.float64)
    assert ridge_of(xx, 10) > 10 * ridge_of(xx, 1000) > 0
