"""What every trainable quantizer of weights has: integers, scales, and a forward pass: their product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument

from ...reduced_range import REDUCED_BITS
from ..straight import keep_parameters

_TINY = torch.finfo(torch.float32).tiny
NEXT_TO_NOTHING = 2.0**-40
"""Scale of weights that are all zero, where integers are not."""


class WeightQuantizer(nn.Module, ABC):
    """Round a weight in the forward pass of training; one object for each layer.

    In evaluation as in training ``forward(w)`` is ``integers(w) * scale(w)`` to the last bit, so what is
    trained is what an archive or an exported file holds. Arithmetic is in float32, also under autocast.

    Args:
        bits: Integers run from ``-(2^(bits-1) - 1)`` to its mirror image; with 1 bit they are -1 and 1.
        axis: Axis of the weight that the scales run along; ``None``: one scale.
        channels: Length of that axis, where there is one.

    Raises:
        BadArgument: Bits that the technique does not have, or an axis without its length.
    """

    BITS: ClassVar[tuple[int, ...]] = tuple(range(2, 9))
    """Bits that the technique can do."""
    ONE_SCALE: ClassVar[bool] = True
    """Whether rounded weights are integers times a scale, which integer kernels need."""

    def __init__(self, bits: int, *, axis: int | None = None, channels: int | None = None) -> None:
        super().__init__()
        self._check(bits)
        if (axis is None) != (channels is None) or (channels is not None and channels < 1):
            raise BadArgument("channels", wanted="the length of the axis", found=f"{axis=}, {channels=}")
        self.bits, self.axis, self.channels = bits, axis, channels
        self.enabled, self.reduced = True, False

    @classmethod
    def of(cls, weight: Tensor, *, bits: int, axis: int | None = None, **options: Any) -> Self:
        """A quantizer for ``weight``, on its device, with its first values set from it."""
        channels = None if axis is None else weight.shape[axis]
        made = cls(bits, axis=axis, channels=channels, **options).to(weight.device)
        made.start_(weight)
        return made

    @classmethod
    def _check(cls, bits: int) -> None:
        if bits not in cls.BITS:
            raise BadArgument("bits", wanted=f"one of {cls.BITS} for {cls.__name__}", found=f"{bits=}")

    def change_bits_(self, bits: int, weight: Tensor) -> None:
        """Go on with other bits, started anew from the weight as it is now.

        Raises:
            BadArgument: Bits that the technique does not have.
        """
        self._check(bits)
        self.bits = bits
        self.start_(weight)

    @property
    def grid_bits(self) -> int:
        """Bits of the grid: 7 where ``reduced`` is set and there are 8."""
        return REDUCED_BITS if self.reduced and self.bits == 8 else self.bits

    @property
    def qmax(self) -> int:
        """Largest integer; the smallest is its negative."""
        return int(max(2 ** (self.grid_bits - 1) - 1, 1))

    @torch.no_grad()
    def start_(self, weight: Tensor) -> None:
        """Set the learned parameters, where there are any, from the float weight."""
        return None

    @abstractmethod
    def scale(self, weight: Tensor) -> Tensor:
        """Positive steps, ``()`` or ``(channels,)``, float32, without a gradient."""

    @abstractmethod
    def _codes(self, weight: Tensor) -> Tensor:
        """The integers of a float32 weight, as float32."""

    @abstractmethod
    def _fake(self, weight: Tensor) -> Tensor:
        """The rounded float32 weight, with its gradient."""

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight, float32, or ``weight`` as it is where ``enabled`` is false."""
        if self.enabled:
            return self._fake(weight.float())
        return keep_parameters(weight, self)

    @torch.no_grad()
    def integers(self, weight: Tensor) -> Tensor:
        """The integers, int8, shaped as ``weight``."""
        return self._codes(weight.float()).to(torch.int8)

    def spread(self, scale: Tensor, weight: Tensor) -> Tensor:
        """Scales shaped to multiply ``weight``."""
        if self.axis is None:
            return scale.reshape(())
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        return scale.reshape(shape)

    def rows(self, weight: Tensor) -> Tensor:
        """``weight`` as a matrix: one row for each scale."""
        return weight.reshape(1, -1) if self.axis is None else weight.movedim(self.axis, 0).flatten(1)

    def per_scale(self, values: Tensor) -> Tensor:
        """One value for each row of :meth:`rows`, shaped as the scales are."""
        return values.reshape(()) if self.axis is None else values

    def extra_repr(self) -> str:
        along = "" if self.axis is None else f", axis={self.axis}, channels={self.channels}"
        return f"{self.bits} bits{along}{'' if self.enabled else ', off'}"


def positive(scale: Tensor) -> Tensor:
    """``scale``, with 1 where it is (nearly) zero, as of weights that are all zero; NaN stays NaN."""
    return torch.where(scale < _TINY, torch.ones_like(scale), scale)


def mean_size(rows: Tensor) -> Tensor:
    """``mean|W|`` of each row, the scale of 1-bit weights; next to nothing for a row of zeros.

    Example:
        >>> mean_size(torch.tensor([[1.0, -3.0]])).tolist()
        [2.0]
    """
    return rows.abs().mean(1).clamp(min=NEXT_TO_NOTHING)
