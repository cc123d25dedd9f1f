"""Names of the quantizers of activations, as recipes use them."""

from __future__ import annotations

from .base import TrainableActivation
from .ema import EMARange
from .lsq import LSQActivation
from .lsq_plus import LSQPlus
from .pact import PACT
from .unit import UnitRange

ACTIVATION_QUANTIZERS: dict[str, type[TrainableActivation]] = {
    "lsq": LSQActivation,
    "lsq_plus": LSQPlus,
    "pact": PACT,
    "ema": EMARange,
    "unit": UnitRange,
}
