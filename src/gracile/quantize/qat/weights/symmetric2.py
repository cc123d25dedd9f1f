"""Symmetric 2-bit weights: ternary by linear rounding.

Source: Hurault, report on compression of convolutional networks, 2019, section 5.1, where ternary weights are
linear symmetric quantization with 2 bits: ``W (2^(b-1) - 1) / alpha`` is rounded with ``b = 2``, so values
are ``-alpha``, 0 and ``alpha``, with ``alpha = max|W|``.
"""

from __future__ import annotations

from typing import ClassVar

from .minmax import MinMaxWeights


class Symmetric2(MinMaxWeights):
    """``a round(W / a)`` with ``a = max|W|``: what lies below half of the largest weight is zero.

    Example:
        >>> import torch
        >>> Symmetric2(2)(torch.tensor([0.1, -0.5, 0.75])).tolist()
        [0.0, -0.75, 0.75]
    """

    BITS: ClassVar[tuple[int, ...]] = (2,)
