"""Several scores of one unit become one: channels that several layers write, or read, are one group.

Source: Fang, Ma, Song, Mi and Wang, "DepGraph: towards any structural pruning", CVPR 2023, arXiv 2301.12900,
section 3.3 (group-level importance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from gracile.errors import BadArgument

Aggregation = Literal["mean", "max", "sum", "product", "norm"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


def aggregate(rows: np.ndarray, aggregation: Aggregation) -> np.ndarray:
    """Put the scores that layers give to the same units together.

    Args:
        rows: Scores ``(layers, units)``, not negative.
        aggregation: ``mean``, ``max``, ``sum``, ``product`` (one layer that does not need a unit is enough
            for it to go) or ``norm`` (Euclidean, between sum and max).

    Returns:
        One score a unit ``(units,)``.

    Example:
        >>> rows = np.array([[1.0, 3.0], [2.0, 4.0]])
        >>> aggregate(rows, "product").tolist(), aggregate(rows, "norm").round(2).tolist()
        ([2.0, 12.0], [2.24, 5.0])
    """
    if aggregation == "norm":
        return np.asarray(np.sqrt(np.square(rows).sum(axis=0)))
    if aggregation == "product":
        return np.asarray(rows.prod(axis=0))
    if aggregation == "max":
        return np.asarray(rows.max(axis=0))
    return np.asarray(rows.mean(axis=0) if aggregation == "mean" else rows.sum(axis=0))


def relative(scores: np.ndarray) -> np.ndarray:
    """Scores divided by their mean, so that layers of different scale count alike.

    Example:
        >>> relative(np.array([1.0, 3.0])).tolist()
        [0.5, 1.5]
    """
    return np.asarray(scores / max(float(scores.mean()), 1e-30))


def check_aggregation(aggregation: str) -> None:
    """Refuse an aggregation that is not known."""
    if aggregation not in AGGREGATIONS:
        raise BadArgument("aggregation", wanted=f"one of {', '.join(AGGREGATIONS)}", found=repr(aggregation))


@dataclass(frozen=True, kw_only=True)
class Aggregated:
    """What criteria have in common that rank by weights, or by activations, and put layers together.

    Raises:
        BadArgument: The aggregation is not known.
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    aggregation: Aggregation = "mean"

    def __post_init__(self) -> None:
        check_aggregation(self.aggregation)
