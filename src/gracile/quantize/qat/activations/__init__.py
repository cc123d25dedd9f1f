"""Quantizers of activations for training, one file each."""

from .base import TrainableActivation as TrainableActivation
from .ema import EMARange as EMARange
from .lsq import LSQActivation as LSQActivation
from .lsq_plus import LSQPlus as LSQPlus
from .names import ACTIVATION_QUANTIZERS as ACTIVATION_QUANTIZERS
from .pact import PACT as PACT
from .rounding import round_to_grid as round_to_grid
from .unit import UnitRange as UnitRange
