"""Names of the quantizers of weights, as recipes use them."""

from __future__ import annotations

from .base import WeightQuantizer
from .dorefa import DoReFaWeights
from .lsq import LSQ
from .minmax import MinMaxWeights
from .symmetric2 import Symmetric2
from .ttq import TTQ
from .twn import TWN
from .xnor import XNOR

WEIGHT_QUANTIZERS: dict[str, type[WeightQuantizer]] = {
    "lsq": LSQ,
    "minmax": MinMaxWeights,
    "dorefa": DoReFaWeights,
    "xnor": XNOR,
    "twn": TWN,
    "ttq": TTQ,
    "symmetric2": Symmetric2,
}
