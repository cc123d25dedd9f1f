"""A median with a confidence interval that assumes nothing about the distribution.

Source: Thompson, "On confidence ranges for the median and other expectation distributions for populations of
unknown distribution form", Annals of Mathematical Statistics 7 (1936): between the k-th smallest and the k-th
largest of n values the median lies with probability ``1 - 2 P(Bin(n, 1/2) < k)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from gracile.errors import BadArgument


def median_ci(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The median, and an interval that covers the true one with probability ``level`` at least.

    Args:
        values: Independent measurements; at least 6 for ``level=0.95``, since of 5 even the extremes miss the
            median once in 16 times.
        level: Between 0 and 1.

    Returns:
        Median, lower end, upper end; the ends are measured values.

    Raises:
        BadArgument: There are too few values for the level.

    Example:
        >>> median_ci([5, 1, 4, 2, 3, 6, 7])
        (4.0, 1.0, 7.0)
    """
    n = len(values)
    k = (
        int(binom.ppf((1 - level) / 2, n, 0.5)) if n else 0
    )  # the largest k with P(Bin(n, 1/2) < k) below half
    if k < 1:
        fewest = next(m for m in range(1, 10_000) if binom.ppf((1 - level) / 2, m, 0.5) >= 1)
        raise BadArgument(
            "median_ci", wanted=f"at least {fewest} values for an interval of {level:.0%}", found=f"{n}"
        )
    ordered = np.sort(np.asarray(values, dtype=float))
    return float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k])
