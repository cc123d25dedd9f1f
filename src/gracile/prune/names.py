"""Criteria and budgets by the names that recipes and the command line use."""

from __future__ import annotations

from .activation import Activation
from .apoz import APoZ
from .bn_scale import BNScale
from .budgets import Budget, Global, Macs, Params, PerLayer
from .criterion import Criterion
from .fisher import Fisher
from .geometric_median import GeometricMedian
from .l1 import L1
from .l2 import L2
from .lp import Lp
from .obd import OBD
from .random import Random
from .reconstruction import Reconstruction
from .similarity import Similarity
from .singe import SInGE
from .taylor import Taylor
from .taylor_weights import TaylorWeights

CRITERIA: dict[str, type[Criterion]] = {
    "random": Random,
    "l1": L1,
    "l2": L2,
    "lp": Lp,
    "geometric_median": GeometricMedian,
    "similarity": Similarity,
    "bn_scale": BNScale,
    "activation": Activation,
    "apoz": APoZ,
    "taylor": Taylor,
    "taylor_weights": TaylorWeights,
    "fisher": Fisher,
    "obd": OBD,
    "singe": SInGE,
    "reconstruction": Reconstruction,
}
BUDGETS: dict[str, type[Budget]] = {
    "per_layer": PerLayer,
    "global": Global,
    "macs": Macs,
    "params": Params,
}
