"""Quantization: grids for weights and activations, found from data, put into the captured graph.

What belongs here finds scales and zero points or makes rounding hurt less; what runs in a forward pass is in
``gracile.nn``, what accumulates over batches in ``gracile.observe``.
"""

from gracile.nn import QuantizedModel as QuantizedModel

from .bias_correction import bias_shifts as bias_shifts
from .grid import Grid as Grid
from .grid import grid as grid
from .grid import limits as limits
from .minmax import MinMax as MinMax
from .model import rebuild as rebuild
from .mse import MSE as MSE
from .percentile import Percentile as Percentile
from .ptq import ptq as ptq
from .rounding import LeastSquares as LeastSquares
from .rounding import Nearest as Nearest
from .scheme import RANGES as RANGES
from .scheme import W8A8 as W8A8
from .scheme import PerChannel as PerChannel
from .scheme import PerTensor as PerTensor
from .scheme import RangeEstimator as RangeEstimator
from .scheme import Scheme as Scheme
