"""Quantization: grids for weights and activations, found from data, put into the captured graph.

What belongs here finds scales and zero points or makes rounding hurt less; what runs in a forward pass is in
``gracile.nn``, what accumulates over batches in ``gracile.observe``.
"""

from gracile.nn import QuantizedModel as QuantizedModel

from .analysis import noise as noise
from .analysis import sensitivity as sensitivity
from .bits import Bits as Bits
from .codebook import CentroidTuning as CentroidTuning
from .codebook import Clustering as Clustering
from .codebook import apply_codebook as apply_codebook
from .codebook import codebook as codebook
from .codebook import kmeans as kmeans
from .grid import Grid as Grid
from .grid import grid as grid
from .grid import limits as limits
from .integer import IntegerRun as IntegerRun
from .integer import integer_forward as integer_forward
from .integer import integer_run as integer_run
from .integer import overflow_report as overflow_report
from .model import rebuild as rebuild
from .ptq import ptq as ptq
from .ranges import ACIQ as ACIQ
from .ranges import KL as KL
from .ranges import MSE as MSE
from .ranges import RANGES as RANGES
from .ranges import CrossEntropy as CrossEntropy
from .ranges import MinMax as MinMax
from .ranges import MovingAverage as MovingAverage
from .ranges import Percentile as Percentile
from .ranges import RangeEstimator as RangeEstimator
from .ranges import statistics_grid as statistics_grid
from .ranges import statistics_range as statistics_range
from .reduced_range import may_overflow as may_overflow
from .rescue import RESCUES as RESCUES
from .rescue import AbsorbBias as AbsorbBias
from .rescue import Equalize as Equalize
from .rescue import Expand as Expand
from .rescue import Factorize as Factorize
from .rescue import Rescue as Rescue
from .rescue import Spiq as Spiq
from .rescue import SplitChannels as SplitChannels
from .rescue import bias_shifts as bias_shifts
from .rescue import equalize as equalize
from .rounding import ROUNDINGS as ROUNDINGS
from .rounding import AdaRound as AdaRound
from .rounding import Blocks as Blocks
from .rounding import LeastSquares as LeastSquares
from .rounding import Nearest as Nearest
from .rounding import Rounding as Rounding
from .rounding import SQuant as SQuant
from .rounding import Stochastic as Stochastic
from .scheme import W8A8 as W8A8
from .scheme import PerChannel as PerChannel
from .scheme import PerGroup as PerGroup
from .scheme import PerTensor as PerTensor
from .scheme import Scheme as Scheme
from .statistics import DataFree as DataFree
from .within import Within as Within
from .within import bits_of as bits_of
from .within import ptq_within as ptq_within
