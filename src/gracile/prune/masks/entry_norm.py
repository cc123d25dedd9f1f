"""Magnitude: entries of small weights go.

Source: Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural networks",
NIPS 2015, arXiv 1506.02626, section 3 (single weights); norms of kernels and larger entries after Mao et al.,
arXiv 1705.08922, section 3.2. Where we differ: norms are means over the entry, so that kernels of different
size compare in a global ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gracile.errors import BadArgument

from .entries import Entries, Floats


@dataclass(frozen=True, kw_only=True)
class EntryNorm:
    """Score an entry by ``(mean |w|^p)^(1/p)`` over its weights.

    Args:
        order: ``p``, 1 or 2. The same for single weights.

    Example:
        >>> pair = Entries(param="w", weight=np.array([[3.0, -4.0]]), ids=np.zeros((1, 2), int), count=1)
        >>> EntryNorm(order=1)(pair).item(), round(EntryNorm(order=2)(pair).item() ** 2, 6)
        (3.5, 12.5)
    """

    needs_gradients: ClassVar[bool] = False
    order: int = 1

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise BadArgument("order", wanted="1 or 2", found=f"order={self.order}")

    def __call__(self, entries: Entries) -> Floats:
        """Score every entry."""
        if self.order == 1:
            return entries.mean(np.abs(entries.weight))
        return np.sqrt(entries.mean(entries.weight**2))
