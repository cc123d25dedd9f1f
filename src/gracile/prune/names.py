"""Criteria and budgets by the names that recipes and the command line use."""

from __future__ import annotations

from .budgets import Budget, Global, Macs, Params, PerLayer
from .criterion import Criterion
from .l1 import L1
from .l2 import L2
from .random import Random
from .reconstruction import Reconstruction

CRITERIA: dict[str, type[Criterion]] = {
    "random": Random,
    "l1": L1,
    "l2": L2,
    "reconstruction": Reconstruction,
}
BUDGETS: dict[str, type[Budget]] = {
    "per_layer": PerLayer,
    "global": Global,
    "macs": Macs,
    "params": Params,
}
