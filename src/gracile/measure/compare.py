"""Two models on the same examples: the paired difference of their accuracies.

Sources:
    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), in the exact, binomial form.
    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998), equations 9 to 13: the score interval, which keeps its level
    where the models hardly ever differ.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from gracile.records import Comparison

from .accuracy import Labels, check_paired

_EDGE = 1e-12


def compare(before: Labels, after: Labels, labels: Labels) -> Comparison:
    """Compare the predictions of two models on the same examples.

    Args:
        before: Class indices ``(n,)`` that the original predicts.
        after: Class indices ``(n,)`` that the changed model predicts.
        labels: True class indices ``(n,)``.

    Returns:
        ``difference = after - before`` in points with a 95 % interval. ``p_value`` is the probability of so
        uneven a split of the examples that exactly one model gets right, if both were equally good.

    Raises:
        BadArgument: The three differ in length, or are empty.

    Example:
        >>> import numpy as np
        >>> truth = np.zeros(100, int)
        >>> changed = np.where(np.arange(100) < 4, 1, 0)
        >>> result = compare(truth, changed, truth)
        >>> result.difference, result.only_before_right, round(result.p_value, 3), result.agreement
        (-4.0, 4, 0.125, 96.0)
    """
    check_paired(before=before, after=after, labels=labels)
    n = len(labels)
    only_before = int(((before == labels) & (after != labels)).sum())
    only_after = int(((before != labels) & (after == labels)).sum())
    low, high = difference_interval(only_before, only_after, n)
    differing = only_before + only_after
    return Comparison(
        difference=100 * (only_after - only_before) / n,
        low=100 * low,
        high=100 * high,
        p_value=float(binomtest(only_after, differing).pvalue) if differing else 1.0,
        only_before_right=only_before,
        only_after_right=only_after,
        agreement=100 * float((before == after).mean()),
        n=n,
    )


def difference_interval(
    only_before: int, only_after: int, n: int, level: float = 0.95
) -> tuple[float, float]:
    """Tango's score interval of ``p(after) - p(before)``, as shares from -1 to 1.

    The interval holds every difference ``D`` that a score test at ``1 - level`` does not reject; at ``D = 0``
    the statistic is McNemar's.

    Args:
        only_before: Examples that only the first model gets right.
        only_after: Examples that only the second gets right.
        n: All examples.
        level: Between 0 and 1.

    Example:
        >>> low, high = difference_interval(0, 0, 1000)
        >>> round(low, 5), round(high, 5)
        (-0.00383, 0.00383)
    """
    z = float(norm.ppf((1 + level) / 2))
    found = (only_after - only_before) / n

    def end(sign: int) -> float:
        edge = sign * (1 - _EDGE)
        if sign * found >= sign * edge:
            return float(sign)
        root: float = brentq(lambda d: _score(only_before, only_after, n, d) + sign * z, found, edge)
        return root

    return end(-1), end(1)


def _score(only_before: int, only_after: int, n: int, difference: float) -> float:
    """``(b - c - n D) / sqrt(n (2 q + D (1 - D)))``, b and c being the counts after and before.

    ``q`` is the most likely probability of ``only_before`` where the difference is ``D``: the larger root of
    ``2 n q^2 + B q + C = 0``.
    """
    b, c, d = only_after, only_before, difference
    distance = b - c - n * d
    if distance == 0:
        return 0.0
    B = -b - c + (2 * n - b + c) * d
    C = -c * d * (1 - d)
    q = (math.sqrt(max(B * B - 8 * n * C, 0.0)) - B) / (4 * n)
    variance = n * (2 * q + d * (1 - d))
    return distance / math.sqrt(max(variance, _EDGE * _EDGE))
