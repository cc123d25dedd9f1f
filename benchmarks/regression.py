"""Least squares with interactions: how much each factor, and each product of factors, moves an outcome."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gracile.errors import BadArgument

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Influence:
    """One coefficient with its 95 % interval; ``term`` names the factors multiplied, ``()`` the mean."""

    term: tuple[str, ...]
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients, the share ``r2`` of the variance that they explain, and the runs behind them."""

    influences: tuple[Influence, ...]
    r2: float
    runs: int

    def of(self, *term: str) -> Influence:
        """The coefficient of a product of factors."""
        return next(found for found in self.influences if found.term == term)


def terms(names: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """All products of at most ``order`` different factors, the empty one first.

    Example:
        >>> terms(["E", "P"], order=2)
        [(), ('E',), ('P',), ('E', 'P')]
    """
    return [t for size in range(order + 1) for t in itertools.combinations(names, size)]


def fit(names: Sequence[str], factors: Matrix, outcome: Matrix, *, order: int) -> Fit:
    """Fit ``f = a0 + a1 x1 + ... + a12 x1 x2 + ...`` by least squares.

    With ``X`` the products ``(runs, terms)``, ``a = (X'X)^-1 X'y``; intervals are Student's, from the
    residual variance on ``runs - terms`` degrees of freedom.

    Args:
        names: One name a factor.
        factors: ``(runs, factors)``; coded to -1..1, so that coefficients compare.
        outcome: ``(runs,)``.
        order: Most factors in a product.

    Raises:
        BadArgument: Too few different runs for so many terms.

    Example:
        >>> x = np.array([[-1.0], [0.0], [1.0], [1.0]])
        >>> round(fit(["E"], x, np.array([1.0, 2.0, 3.0, 3.0]), order=1).of("E").value, 6)
        1.0
    """
    products = terms(names, order)
    column = {name: factors[:, i] for i, name in enumerate(names)}
    X = np.stack([np.prod([column[n] for n in t], axis=0) * np.ones(len(factors)) for t in products], axis=1)
    runs, count = X.shape
    if runs <= count or np.linalg.matrix_rank(X) < count:
        raise BadArgument(
            "factors",
            wanted=f"more than {count} runs that tell {count} terms apart",
            found=f"{runs} runs of rank {np.linalg.matrix_rank(X)}",
            do="Add runs, or lower the order.",
        )
    q, r = np.linalg.qr(X)
    a = np.linalg.solve(r, q.T @ outcome)
    residual = outcome - X @ a
    inverse = np.linalg.inv(r)
    variance = float(residual @ residual) / (runs - count) * (inverse @ inverse.T).diagonal()
    half = stats.t.ppf(0.975, runs - count) * np.sqrt(variance)
    spread = float(((outcome - outcome.mean()) ** 2).sum())
    return Fit(
        influences=tuple(
            Influence(term=t, value=float(v), low=float(v - h), high=float(v + h))
            for t, v, h in zip(products, a, half, strict=True)
        ),
        r2=1 - float(residual @ residual) / spread if spread else 0.0,
        runs=runs,
    )
