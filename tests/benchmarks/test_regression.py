"""Least squares with interactions against numpy and against known coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.regression import fit, terms
from gracile.errors import BadArgument

NAMES = ["E", "P", "I"]


def test_the_documents_model_has_eight_terms() -> None:
    found = ["".join(term) for term in terms(NAMES, order=3)]
    assert found == ["", "E", "P", "I", "EP", "EI", "PI", "EPI"]


def test_known_coefficients_come_back() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    y = 3 + 2 * x[:, 0] - x[:, 1] * x[:, 2] + 0.5 * x.prod(axis=1)
    found = fit(NAMES, x, y, order=3)
    wanted = {(): 3.0, ("E",): 2.0, ("P", "I"): -1.0, ("E", "P", "I"): 0.5}
    for influence in found.influences:
        assert influence.value == pytest.approx(wanted.get(influence.term, 0.0), abs=1e-10)
    assert found.r2 == pytest.approx(1)


def test_against_numpy() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.uniform(-1, 1, (50, 3)), draw.normal(size=50)
    e, p, i = x.T
    X = np.stack([np.ones(50), e, p, i, e * p, e * i, p * i, e * p * i], axis=1)
    a, residual, _, _ = np.linalg.lstsq(X, y, rcond=None)
    found = fit(NAMES, x, y, order=3)
    np.testing.assert_allclose([influence.value for influence in found.influences], a)
    error = np.sqrt(np.linalg.inv(X.T @ X).diagonal() * residual[0] / 42)
    halves = [(influence.high - influence.low) / 2 for influence in found.influences]
    np.testing.assert_allclose(halves, 2.018081703 * error, rtol=1e-6)  # Student's t, 42 degrees, 97.5 %
    assert found.r2 == pytest.approx(1 - residual[0] / ((y - y.mean()) ** 2).sum())


def test_intervals_cover() -> None:
    draw, hits = np.random.default_rng(2), 0
    for _ in range(400):
        x = draw.uniform(-1, 1, (20, 2))
        found = fit(["a", "b"], x, 1 + x[:, 0] + draw.normal(size=20), order=2).of("a")
        hits += found.low <= 1 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_too_few_runs() -> None:
    with pytest.raises(BadArgument, match="wanted more than 8 runs that tell 8 terms apart, found 8 runs"):
        fit(NAMES, np.random.default_rng(0).uniform(size=(8, 3)), np.zeros(8), order=3)
    with pytest.raises(BadArgument, match="rank 1"):
        fit(["a"], np.ones((9, 1)), np.zeros(9), order=1)
