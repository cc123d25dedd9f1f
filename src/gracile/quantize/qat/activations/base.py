"""What every trainable quantizer of activations has: a grid of the kind that runtimes execute."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gracile.errors import BadArgument

from ..straight import keep_parameters


class TrainableActivation(nn.Module, ABC):
    """Round activations in the forward pass of training; one object for each place.

    In evaluation ``forward(x)`` is ``gracile.nn.ActivationQuantizer`` with :meth:`grid`, to the last bit.
    Arithmetic is in float32, also under autocast.

    Args:
        bits: Integers run from 0 to ``2^bits - 1``.

    Raises:
        BadArgument: Bits that the technique does not have.
    """

    BITS: ClassVar[tuple[int, ...]] = tuple(range(1, 9))
    """Bits that the technique can do."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        if bits not in self.BITS:
            raise BadArgument(
                "bits", wanted=f"one of {self.BITS} for {type(self).__name__}", found=f"{bits=}"
            )
        self.bits = bits
        self.enabled = True
        self.observing = True

    @property
    def qmax(self) -> int:
        """Largest integer; the smallest is 0."""
        return int(2**self.bits - 1)

    @abstractmethod
    def start_(self, low: float, high: float) -> None:
        """Set the first range, from calibration: ``low <= 0 <= high`` after widening it to hold zero."""

    @abstractmethod
    def steps(self) -> tuple[Tensor, Tensor]:
        """Positive scale, float32, and zero point, int32, both ``()`` and without a gradient."""

    @abstractmethod
    def _fake(self, x: Tensor) -> Tensor:
        """The rounded float32 activations with their gradient."""

    def observe(self, x: Tensor) -> None:
        """Read the statistics of a batch, where the technique has any; in training only."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """The rounded activations, float32, or ``x`` as it is where ``enabled`` is false."""
        if self.training and self.observing:
            self.observe(x.detach().float())
        if self.enabled:
            return self._fake(x.float())
        return keep_parameters(x, self)

    def grid(self) -> tuple[float, int, int, int]:
        """Scale, zero point, smallest and largest integer."""
        scale, zero_point = self.steps()
        return float(scale), int(zero_point), 0, self.qmax

    def extra_repr(self) -> str:
        return f"{self.bits} bits{'' if self.enabled else ', off'}"


def check_range(low: float, high: float) -> tuple[float, float]:
    """The range, widened to hold zero.

    Raises:
        BadArgument: Its ends are the wrong way round, or not finite.

    Example:
        >>> check_range(1.0, 3.0)
        (0.0, 3.0)
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise BadArgument("low", wanted="finite ends, low <= high", found=f"{low=}, {high=}")
    return min(low, 0.0), max(high, 0.0)
