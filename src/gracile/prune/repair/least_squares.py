"""Least squares from second moments, drawn towards the weights that are there."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4
PER_COLUMN = 0.1
SMALLEST = 1e-20  # inputs that are zero on all calibration data are still pulled


def ridge_of(xx: Tensor, rows: int, ridge: float = RIDGE, per_column: float = PER_COLUMN) -> Tensor:
    """Strength of the pull, ``mean(diag(X'X)) (ridge + per_column * columns / rows)``.

    The second term counts where there are few rows for the columns, and the fit would follow the noise.

    Args:
        xx: ``X'X`` with the column of ones last, ``(columns + 1, columns + 1)``.
        rows: Rows that it sums.
        ridge: Relative strength with any number of rows.
        per_column: Added strength with as many columns as rows.
    """
    columns = xx.shape[0] - 1
    mean = xx.diagonal()[:-1].mean().clamp_min(SMALLEST)
    return mean * (ridge + per_column * columns / max(rows, 1))


def fit(xx: Tensor, xy: Tensor, towards: Tensor, pull: Tensor | float, *, intercept: bool = True) -> Tensor:
    """Solve ``min ||X W - Y||^2 + pull ||W - towards||^2``; the intercept is not pulled.

    ``W = towards + (X'X + pull I)^-1 (X'Y - X'X towards)``.

    Args:
        xx: ``X'X`` with the column of ones last, ``(columns + 1, columns + 1)``, float64.
        xy: ``X'Y``, ``(columns + 1, outputs)``.
        towards: Weights there are, intercept last, ``(columns + 1, outputs)``.
        pull: Strength, at least 0; with 0 a singular system gets the solution nearest to ``towards``.
        intercept: Fit the intercept; otherwise it stays as in ``towards``.

    Returns:
        Weights and intercept ``(columns + 1, outputs)``, float64.

    Example:
        >>> x = torch.cat([torch.randn(20, 3), torch.ones(20, 1)], 1).double()
        >>> w = torch.randn(4, 2).double()
        >>> found = fit(x.T @ x, x.T @ x @ w, torch.zeros(4, 2).double(), 0.0)
        >>> torch.allclose(found, w)
        True
    """
    left = xy - xx @ towards
    used = slice(None) if intercept else slice(0, -1)
    system = xx[used, used].clone()
    system.diagonal()[: xx.shape[0] - 1] += pull
    step = _solve(system, left[used])
    found = towards.clone()
    found[used] += step
    return found


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Solve a symmetric system; a (nearly) singular one with the smallest solution."""
    factor, info = torch.linalg.cholesky_ex(system)
    diagonal = factor.diagonal()
    if int(info) == 0 and float(diagonal.min()) > 1e-7 * float(diagonal.max()):
        return torch.cholesky_solve(right, factor)
    inverse: Tensor = torch.linalg.pinv(system, rtol=1e-12, hermitian=True)
    return inverse @ right
