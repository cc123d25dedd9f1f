"""Top-1 accuracy with an interval.

Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
American Statistical Association 22 (1927).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from gracile.errors import BadArgument
from gracile.records import Accuracy

Labels = NDArray[np.int64]


def accuracy(predicted: Labels, labels: Labels) -> Accuracy:
    """Share of right predictions in percent, with a 95 % Wilson score interval.

    Args:
        predicted: Class indices ``(n,)``.
        labels: True class indices ``(n,)``.

    Raises:
        BadArgument: The two differ in length, or are empty.

    Example:
        >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])).percent
        75.0
    """
    check_paired(predicted=predicted, labels=labels)
    right, n = int((predicted == labels).sum()), len(labels)
    interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return Accuracy(
        percent=100 * right / n, n=n, low=float(100 * interval.low), high=float(100 * interval.high)
    )


def check_paired(**arrays: Labels) -> None:
    """Raise unless all arrays are ``(n,)`` with the same ``n``, at least 1.

    Raises:
        BadArgument: They are not.
    """
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    first = next(iter(shapes.values()))
    if len(first) != 1 or first[0] == 0 or any(shape != first for shape in shapes.values()):
        raise BadArgument(
            "accuracy",
            wanted="one class index for each of the same examples",
            found=", ".join(f"{name} {shape}" for name, shape in shapes.items()),
        )
