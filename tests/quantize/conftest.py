"""Slow, obvious versions that the range estimators are held against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Error = Callable[[np.ndarray, float, int, int, int], float]
Best = Callable[[np.ndarray, int, bool, bool], float]


def squared_error(x: np.ndarray, scale: float, zero_point: int, qmin: int, qmax: int) -> float:
    q = np.clip(np.rint(x / scale) + zero_point, qmin, qmax)
    return float(np.mean((scale * (q - zero_point) - x) ** 2))


def best_error(x: np.ndarray, bits: int, signed: bool, symmetric: bool) -> float:
    """Least error over every zero point and 400 scales: nothing clever."""
    if signed:
        qmax = 2 ** (bits - 1) - 1
        qmin = -qmax if symmetric else -qmax - 1
    else:
        qmin, qmax = 0, 2**bits - 1
    if symmetric:
        zeros = [0] if signed or x.min() >= 0 else [2 ** (bits - 1)]
    else:
        zeros = list(range(qmin, qmax + 1, 1 if bits < 8 else 3))
    span = max(float(np.abs(x).max()), 1e-6) * 1.05
    least = np.inf
    for zero in zeros:
        reach = max(zero - qmin, qmax - zero)
        for share in np.linspace(0.02, 1, 400 if len(zeros) < 20 else 60):
            least = min(least, squared_error(x, 2 * span * share / (qmax - qmin), zero, qmin, qmax))
            least = min(least, squared_error(x, span * share / reach, zero, qmin, qmax))
    return least


@pytest.fixture
def brute_force() -> Best:
    return best_error


@pytest.fixture
def error_of() -> Error:
    return squared_error
