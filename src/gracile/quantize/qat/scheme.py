"""What is trained: bits, techniques of weights and activations, where batch norm stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gracile.errors import BadArgument

from ..bits import Bits
from ..ranges import MSE, RANGES, RangeEstimator
from .activations import ACTIVATION_QUANTIZERS
from .batch_norm import SCHEMES_OF_BN
from .weights import WEIGHT_QUANTIZERS


@dataclass(frozen=True, kw_only=True)
class QatScheme:
    """How a network is quantized while it trains.

    Grids of weights are symmetric and narrow, ``-(2^(b-1) - 1)..2^(b-1) - 1``; 2 bits are ternary, 1 bit is
    ``{-1, 1}``. Activations lie in unsigned grids, as after training (:class:`gracile.quantize.Scheme`).

    Args:
        weight_bits: 1 to 8.
        activation_bits: Of what layers read, 1 to 8.
        sum_bits: Of what only sums, averages and outputs read, 2 to 8.
        ends: Bits of the first and the last layers; ``Bits()`` for no exception.
        layers: Bits by layer name or pattern; of several that fit the last counts.
        weights: Name in ``WEIGHT_QUANTIZERS``. Layers whose bits it does not have take the first that does.
        activations: Name in ``ACTIVATION_QUANTIZERS``, likewise. ``pact`` and ``unit`` are for values from 0
            on, and ``unit``, which cuts at 1, for fewer than 8 bits; elsewhere ``lsq`` acts.
        per_channel: One scale for each output channel; else one for a weight. Free at run time.
        batch_norm: Name in ``SCHEMES_OF_BN``: where normalisation stands while training.
        reduce_range: Weights of 8 bits that meet 8-bit inputs use only half their range, ``-63..63``, so that
            processors without VNNI cannot overflow (:mod:`gracile.quantize.reduced_range`); ``None``: if this
            processor is one.
        activation_range: How first ranges are found on calibration images.

    Raises:
        BadArgument: Bits outside their range, or a name that is not known.

    Example:
        >>> QatScheme(weight_bits=2, weights="twn").ends
        Bits(weights=8, activations=8)
    """

    weight_bits: int = 4
    activation_bits: int = 8
    sum_bits: int = 8
    ends: Bits = field(default_factory=lambda: Bits(weights=8, activations=8))
    layers: Mapping[str, Bits] = field(default_factory=dict)
    weights: str = "lsq"
    activations: str = "lsq"
    per_channel: bool = True
    batch_norm: str = "plain"
    reduce_range: bool | None = None
    activation_range: RangeEstimator | str = field(default_factory=MSE)

    def __post_init__(self) -> None:
        for name, least in (("weight_bits", 1), ("activation_bits", 1), ("sum_bits", 2)):
            bits = getattr(self, name)
            if not (isinstance(bits, int) and least <= bits <= 8):
                raise BadArgument(name, wanted=f"a whole number from {least} to 8", found=f"{bits!r}")
        _known("weights", self.weights, WEIGHT_QUANTIZERS)
        _known("activations", self.activations, ACTIVATION_QUANTIZERS)
        _known("batch_norm", self.batch_norm, SCHEMES_OF_BN)
        if isinstance(self.activation_range, str):
            _known("activation_range", self.activation_range, RANGES)
            object.__setattr__(self, "activation_range", RANGES[self.activation_range]())


def _known(argument: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise BadArgument(argument, wanted=f"one of {', '.join(names)}", found=repr(name))
