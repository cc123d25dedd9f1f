"""Where the entries of an axis lie once some of them stand several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Copies:
    """A longer axis: entry ``j`` is number ``number[j]`` of the copies of old entry ``index[j]``."""

    index: np.ndarray
    number: np.ndarray


def repeat_runs(vectors: Sequence[np.ndarray], times: np.ndarray) -> Copies:
    """Repeat each run of neighbours that belong together as a whole, right behind itself.

    So order is kept by whatever splits, joins, flattens or interleaves channels: a channel that was flattened
    with its pixels is repeated with all of them, one that lies in two halves is repeated in each.

    Args:
        vectors: Components of the axis' entries, one array for each plane of a tensor, ``(size,)`` each.
        times: How often each component stands in the result, at least 1.

    Example:
        >>> found = repeat_runs([np.array([1, 1, 2, 0])], times=np.array([1, 2, 3]))
        >>> found.index.tolist(), found.number.tolist()
        ([0, 1, 0, 1, 2, 2, 2, 3], [0, 0, 1, 1, 0, 1, 2, 0])
    """
    together = np.stack(vectors)
    size = together.shape[1]
    starts = np.flatnonzero(np.r_[True, (together[:, 1:] != together[:, :-1]).any(0)])
    ends = np.append(starts[1:], size)
    each = times[together[:, starts]].max(0)  # copies of each run
    length = np.repeat(ends - starts, each)  # one entry for each copy, in order
    first = np.repeat(starts, each)
    copy = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return Copies(index=np.repeat(first, length) + inside, number=np.repeat(copy, length))
