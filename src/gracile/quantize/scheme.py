"""What is asked for: bits, granularity, symmetry and how ranges are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gracile.errors import BadArgument

from .bits import Bits
from .ranges import MSE, RANGES, CrossEntropy, RangeEstimator
from .rescue import Rescue
from .rounding import ROUNDINGS, Rounding
from .statistics import DataFree


@dataclass(frozen=True, kw_only=True)
class PerTensor:
    """One scale for the whole weight."""


@dataclass(frozen=True, kw_only=True)
class PerChannel:
    """One scale for each output channel (axis 0 of a weight). It costs nothing at run time."""


@dataclass(frozen=True, kw_only=True)
class PerGroup:
    """One scale for every ``size`` neighbouring input channels of each output channel; the last may be fewer.

    One sum cannot hold products of several scales, so runtimes calculate such layers in float: it makes files
    smaller and few bits better, not faster.

    Args:
        size: Input channels, at least 1.
    """

    size: int = 32

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and self.size >= 1):
            raise BadArgument("size", wanted="a whole number of at least 1", found=f"{self.size!r}")


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How to quantize.

    Activations are per tensor, in unsigned 8-bit containers: with ``activation_symmetric`` the zero point is
    0 or the middle, else it fits the range. Signed containers were measured 2.3 times slower in ONNX Runtime,
    since it does not fold a ReLU into them.

    Args:
        weight_bits: 2 to 8.
        activation_bits: Of what layers read, 2 to 8.
        sum_bits: Of what only sums, products, averages and the model's outputs read, 2 to 8. Runtimes keep
            activations in 8-bit containers anyway, so fewer bits there cost accuracy and save nothing.
        ends: Bits of the first and the last layers, which few bits hurt most; ``Bits()`` for no exception.
        layers: Bits by layer name or pattern (``stage1.*``); of several that fit the last counts.
        weight_granularity: ``PerChannel()``, ``PerTensor()`` or ``PerGroup(size=32)``.
        weight_symmetric: Zero point 0; what integer kernels are fast with.
        activation_symmetric: See above.
        weight_range: Range estimator for weights, an object or a name in ``RANGES``.
        activation_range: Range estimator for activations, likewise.
        rounding: An object such as ``Blocks()`` or ``Nearest()``, or a name in ``ROUNDINGS``. ``None`` is
            ``LeastSquares()`` where all has 8 bits, and else ``Blocks()``.
        bias_correction: Shift biases so that each layer's mean output on calibration data is the float one,
            where that brings the output of the model nearer to the float one on other calibration data.
        dynamic: Find ranges of activations in each batch at run time, instead of beforehand: only what layers
            read is rounded, ``activation_range`` and ``sum_bits`` do not count, and fewer than 8 bits run in
            simulation only.
        reduce_range: Weights of 8 bits that meet 8-bit inputs use only half their range, ``-63..63``, so that
            processors without VNNI cannot overflow (:mod:`gracile.quantize.reduced_range`); ``None``: if this
            processor is one.
        rescue: What changes the float network beforehand so that few bits hurt less, in this order, such as
            ``(Equalize(),)``. ``None``: ``(Equalize(),)`` without data and with one scale for a weight, else
            nothing.
        data_free: What is assumed when there are no calibration data.

    Example:
        >>> Scheme(weight_bits=4).weight_bits
        4
    """

    weight_bits: int = 8
    activation_bits: int = 8
    sum_bits: int = 8
    ends: Bits = field(default_factory=lambda: Bits(weights=8, activations=8))
    layers: Mapping[str, Bits] = field(default_factory=dict)
    weight_granularity: PerTensor | PerChannel | PerGroup = field(default_factory=PerChannel)
    weight_symmetric: bool = True
    activation_symmetric: bool = False
    weight_range: RangeEstimator | str = field(default_factory=MSE)
    activation_range: RangeEstimator | str = field(default_factory=MSE)
    rounding: Rounding | str | None = None
    bias_correction: bool = False
    dynamic: bool = False
    reduce_range: bool | None = None
    rescue: tuple[Rescue, ...] | None = None
    data_free: DataFree = field(default_factory=DataFree)

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "sum_bits"):
            bits = getattr(self, name)
            if not (isinstance(bits, int) and 2 <= bits <= 8):
                raise BadArgument(name, wanted="a whole number from 2 to 8", found=f"{bits!r}")
        for where, own in (("ends", self.ends), *((f"layers[{p!r}]", b) for p, b in self.layers.items())):
            if 1 in (own.weights, own.activations):
                raise BadArgument(
                    where,
                    wanted="2 to 8 bits",
                    found=f"{own}",
                    do="One bit has to be trained: use gracile.quantize.qat.",
                )
        for name in ("weight_range", "activation_range"):
            chosen = getattr(self, name)
            if isinstance(chosen, str):
                if chosen not in RANGES:
                    raise BadArgument(name, wanted=f"one of {', '.join(RANGES)}", found=repr(chosen))
                object.__setattr__(self, name, RANGES[chosen]())
        if isinstance(self.weight_range, CrossEntropy):
            raise BadArgument(
                "weight_range",
                wanted="an estimator for weights, such as mse",
                found="cross_entropy, which is for logits",
                do="Give it as activation_range.",
            )
        if isinstance(self.rounding, str) and self.rounding in ROUNDINGS:
            object.__setattr__(self, "rounding", ROUNDINGS[self.rounding]())
        if self.rounding is not None and (
            not callable(getattr(self.rounding, "round", None))
            or isinstance(self.rounding, type | int | float)
        ):
            raise BadArgument(
                "rounding",
                wanted=f"an object such as Nearest(), or one of {', '.join(ROUNDINGS)}",
                found=repr(self.rounding),
            )
        if self.dynamic and self.activation_symmetric:
            raise BadArgument(
                "dynamic", wanted="activation_symmetric=False", found="both", do="Leave one of them out."
            )
        for entry in self.rescue or ():
            if not callable(getattr(entry, "apply", None)) or isinstance(entry, type):
                raise BadArgument("rescue", wanted="objects such as Equalize()", found=repr(entry))
        if not isinstance(self.weight_granularity, PerTensor | PerChannel | PerGroup):
            raise BadArgument(
                "weight_granularity",
                wanted="PerTensor(), PerChannel() or PerGroup(size=32)",
                found=repr(self.weight_granularity),
            )

    @property
    def weight_axis(self) -> int | None:
        """Axis of a weight that scales run along."""
        return None if isinstance(self.weight_granularity, PerTensor) else 0

    @property
    def weight_group(self) -> int | None:
        """Input channels that share a scale; ``None`` for all."""
        return self.weight_granularity.size if isinstance(self.weight_granularity, PerGroup) else None


W8A8 = Scheme()
"""8-bit weights per channel and 8-bit activations per tensor: what CPUs execute in integers."""
