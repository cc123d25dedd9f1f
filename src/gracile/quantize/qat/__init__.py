"""Quantization-aware training: fake quantization in the forward pass, gradients straight through.

``prepare`` makes a network that trains quantized, ``Phases`` switches it while it trains, and
``QatModel.convert`` gives what is deployed. Weights, activations and batch norms have a room each, one
technique a file.
"""

from .activations import ACTIVATION_QUANTIZERS as ACTIVATION_QUANTIZERS
from .batch_norm import SCHEMES_OF_BN as SCHEMES_OF_BN
from .model import QatModel as QatModel
from .model import zeros as zeros
from .oscillation import Damping as Damping
from .oscillation import Freezing as Freezing
from .phases import Phases as Phases
from .phases import Plan as Plan
from .prepare import prepare as prepare
from .scheme import QatScheme as QatScheme
from .weights import WEIGHT_QUANTIZERS as WEIGHT_QUANTIZERS
