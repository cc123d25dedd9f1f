"""Random entries: the baseline that every criterion has to beat.

Source: Liu, Chen, Chen, Shen, Mocanu, Wang and Pechenizkiy, "The unreasonable effectiveness of random
pruning", ICLR 2022, arXiv 2202.02643, section 3.1.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .entries import Entries, Floats


@dataclass(frozen=True, kw_only=True)
class EntryRandom:
    """Score entries by uniform random numbers of the plan's seed and the parameter's name.

    Example:
        >>> two = Entries(param="w", weight=np.zeros((1, 2)), ids=np.array([[0, 1]]), count=2)
        >>> EntryRandom()(two).tolist() == EntryRandom()(two).tolist()
        True
    """

    needs_gradients: ClassVar[bool] = False

    def __call__(self, entries: Entries) -> Floats:
        """Score every entry."""
        return np.random.default_rng([entries.seed, zlib.crc32(entries.param.encode())]).random(entries.count)
