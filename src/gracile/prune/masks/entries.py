"""What a criterion of entries is: it looks at one layer's weights and scores every entry; higher = keep.

Criteria of channels (:mod:`gracile.prune.criteria.criterion`) see groups of layers. Masks leave every shape
as it is, so here each layer is seen by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Entries:
    """One layer's weights and the entries that they belong to.

    ``weight`` is ``(outputs, inputs of a group, *kernel)``, ``ids`` the entry of each weight, ``count`` the
    number of entries; ``gradient`` is the mean absolute gradient in the shape of ``weight``, or ``None``.
    """

    param: str
    weight: Floats
    ids: NDArray[np.int64]
    count: int
    gradient: Floats | None = None
    seed: int = 0

    def mean(self, values: Floats) -> Floats:
        """Mean over each entry of ``values``, one a weight: entries of different size then compare.

        Example:
            >>> both = Entries(param="w", weight=np.zeros((1, 3)), ids=np.array([[0, 0, 1]]), count=2)
            >>> both.mean(np.array([[1.0, 3.0, 5.0]])).tolist()
            [2.0, 5.0]
        """
        ids = self.ids.reshape(-1)
        if len(ids) == self.count:  # single weights, in whatever order
            found = np.empty(self.count)
            found[ids] = values.reshape(-1)
            return found
        sums = np.bincount(ids, weights=values.reshape(-1), minlength=self.count)
        return np.asarray(sums / self.sizes, dtype=np.float64)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Weights of each entry."""
        return np.bincount(self.ids.reshape(-1), minlength=self.count)


@runtime_checkable
class EntryCriterion(Protocol):
    """Scores the entries of one layer; scores of different layers must compare for a global ranking."""

    @property
    def needs_gradients(self) -> bool: ...

    def __call__(self, entries: Entries) -> Floats:
        """One score an entry, ``(count,)``."""
        ...
