"""Quantizers of weights for training, one file each."""

from .base import WeightQuantizer as WeightQuantizer
from .dorefa import DoReFaWeights as DoReFaWeights
from .lsq import LSQ as LSQ
from .minmax import MinMaxWeights as MinMaxWeights
from .names import WEIGHT_QUANTIZERS as WEIGHT_QUANTIZERS
from .symmetric2 import Symmetric2 as Symmetric2
from .ttq import TTQ as TTQ
from .twn import TWN as TWN
from .xnor import XNOR as XNOR
