"""The nearest two of many rows go together, again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Join:
    """One step: unit ``goes`` joins unit ``into``, ``distance`` away from it."""

    goes: int
    into: int
    distance: float


def join_nearest(rows: Tensor, p: float, *, mean: bool) -> tuple[Join, ...]:
    """Join rows until one is left.

    At each step the two nearest rows are taken. With ``mean`` the one with fewer members joins the other, and
    the mean of all members stands for them from then on (their distance may then be smaller than an earlier
    one's). Otherwise the one of smaller norm goes and nothing moves.

    Args:
        rows: One row a unit ``(units, numbers)``, float64.
        p: Order of the distance, at least 1.
        mean: Whether rows merge or go.

    Returns:
        The steps, one fewer than there are rows.

    Example:
        >>> [(j.goes, j.into) for j in join_nearest(torch.tensor([[0.0], [5.0], [5.5]]), 2, mean=False)]
        [(1, 2), (0, 2)]
    """
    rows = rows.clone()
    size = torch.linalg.vector_norm(rows, ord=p, dim=1)
    members = torch.ones(len(rows), dtype=rows.dtype)
    distance = _distances(rows, rows, p).fill_diagonal_(float("inf"))
    near, at = distance.min(1)
    found: list[Join] = []
    for _ in range(len(rows) - 1):
        a = int(near.argmin())
        b = int(at[a])
        weight = members if mean else size
        goes, into = (a, b) if (float(weight[a]), -a) < (float(weight[b]), -b) else (b, a)
        found.append(Join(goes, into, float(distance[a, b])))
        distance[goes] = distance[:, goes] = float("inf")
        if mean:
            total = members[goes] + members[into]
            rows[into] = (members[goes] * rows[goes] + members[into] * rows[into]) / total
            members[into] = total
            fresh = _distances(rows[into][None], rows, p)[0]
            fresh[torch.isinf(distance[into])] = float("inf")
            distance[into] = distance[:, into] = fresh
        stale = (at == goes) | (at == into)
        stale[[goes, into]] = True
        near[stale], at[stale] = distance[stale].min(1)
        if mean:
            closer = distance[:, into] < near
            near[closer], at[closer] = distance[closer, into], into
    return tuple(found)


def _distances(a: Tensor, b: Tensor, p: float) -> Tensor:
    """Exact distances, zero between equal rows."""
    return torch.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def scores_of(joins: tuple[Join, ...], units: int) -> np.ndarray:
    """Scores under which units leave in the order of the steps; the last unit never does.

    Example:
        >>> scores_of((Join(1, 2, 0.5), Join(0, 2, 0.25)), 3).round(6).tolist()
        [0.5, 0.5, inf]
    """
    found = np.full(units, np.inf)
    highest = 0.0
    for step, join in enumerate(joins):
        highest = max(highest, join.distance)
        found[join.goes] = highest * (1 + 1e-9 * step) + 1e-15 * step
    return found
