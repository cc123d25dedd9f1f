"""What is asked for: bits, granularity, symmetry and how ranges are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from gracile.errors import BadArgument
from gracile.observe import Histogram

from .grid import Grid
from .minmax import MinMax
from .mse import MSE
from .percentile import Percentile
from .rounding import LeastSquares, Nearest


class RangeEstimator(Protocol):
    """Finds the grid for given values: a tensor at once, or what a :class:`Histogram` has seen."""

    def __call__(
        self, x: Tensor, *, bits: int, signed: bool, symmetric: bool, axis: int | None = None
    ) -> Grid:
        """Grid for the values of ``x``, one for each index of ``axis``."""
        ...

    def of_histogram(self, seen: Histogram, *, bits: int, signed: bool, symmetric: bool) -> Grid:
        """Grid for values seen over batches."""
        ...


RANGES: dict[str, type[MinMax] | type[Percentile] | type[MSE]] = {
    "minmax": MinMax,
    "percentile": Percentile,
    "mse": MSE,
}
"""Range estimators by the name that recipes use."""


@dataclass(frozen=True, kw_only=True)
class PerTensor:
    """One scale for the whole weight."""


@dataclass(frozen=True, kw_only=True)
class PerChannel:
    """One scale for each output channel (axis 0 of a weight). It costs nothing at run time."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How to quantize.

    Activations are per tensor, in unsigned 8-bit containers: with ``activation_symmetric`` the zero point is
    0 or the middle, else it fits the range. Signed containers were measured 2.3 times slower in ONNX Runtime,
    since it does not fold a ReLU into them.

    Args:
        weight_bits: 2 to 8.
        activation_bits: 2 to 8.
        weight_granularity: ``PerChannel()`` or ``PerTensor()``.
        weight_symmetric: Zero point 0; what integer kernels are fast with.
        activation_symmetric: See above.
        weight_range: Range estimator for weights, an object or a name in ``RANGES``.
        activation_range: Range estimator for activations, likewise.
        rounding: ``LeastSquares()`` keeps each layer's output near (symmetric weights only), ``Nearest()``
            each weight by itself.
        bias_correction: Shift biases so that each layer's mean output on calibration data is the float one,
            where that brings the output of the model nearer to the float one on other calibration data.

    Example:
        >>> Scheme(weight_bits=4).weight_bits
        4
    """

    weight_bits: int = 8
    activation_bits: int = 8
    weight_granularity: PerTensor | PerChannel = field(default_factory=PerChannel)
    weight_symmetric: bool = True
    activation_symmetric: bool = False
    weight_range: RangeEstimator | str = field(default_factory=MSE)
    activation_range: RangeEstimator | str = field(default_factory=MSE)
    rounding: Nearest | LeastSquares = field(default_factory=LeastSquares)
    bias_correction: bool = False

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            bits = getattr(self, name)
            if not (isinstance(bits, int) and 2 <= bits <= 8):
                raise BadArgument(name, wanted="a whole number from 2 to 8", found=f"{bits!r}")
        for name in ("weight_range", "activation_range"):
            chosen = getattr(self, name)
            if isinstance(chosen, str):
                if chosen not in RANGES:
                    raise BadArgument(name, wanted=f"one of {', '.join(RANGES)}", found=repr(chosen))
                object.__setattr__(self, name, RANGES[chosen]())
        if not isinstance(self.rounding, Nearest | LeastSquares):
            raise BadArgument("rounding", wanted="Nearest() or LeastSquares()", found=repr(self.rounding))
        if not isinstance(self.weight_granularity, PerTensor | PerChannel):
            raise BadArgument(
                "weight_granularity",
                wanted="PerTensor() or PerChannel()",
                found=repr(self.weight_granularity),
            )

    @property
    def weight_axis(self) -> int | None:
        """Axis of a weight that scales run along."""
        return 0 if isinstance(self.weight_granularity, PerChannel) else None


W8A8 = Scheme()
"""8-bit weights per channel and 8-bit activations per tensor: what CPUs execute in integers."""
