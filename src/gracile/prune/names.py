"""Criteria, budgets, granularities and schedules by the names that recipes and the command line use."""

from __future__ import annotations

from .activation import Activation
from .apoz import APoZ
from .bn_scale import BNScale
from .budgets import Budget, Global, Macs, Params, PerLayer
from .criterion import Criterion
from .entries import EntryCriterion
from .entry_gradient import EntryGradient
from .entry_norm import EntryNorm
from .entry_random import EntryRandom
from .fisher import Fisher
from .geometric_median import GeometricMedian
from .granularity import Block, Element, Granularity, InputChannel, Kernel, NofM, OutputChannel
from .l1 import L1
from .l2 import L2
from .lp import Lp
from .obd import OBD
from .random import Random
from .reconstruction import Reconstruction
from .schedules import Cubic, Linear, OneShot, Schedule
from .sensitivity import Sensitivity
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
    "sensitivity": Sensitivity,
}
BUDGETS: dict[str, type[Budget]] = {
    "per_layer": PerLayer,
    "global": Global,
    "macs": Macs,
    "params": Params,
}
ENTRY_CRITERIA: dict[str, EntryCriterion] = {
    "random": EntryRandom(),
    "l1": EntryNorm(order=1),
    "l2": EntryNorm(order=2),
    "gradient": EntryGradient(),
}
"""Criteria of masks."""
GRANULARITIES: dict[str, Granularity] = {
    "element": Element(),
    "kernel": Kernel(),
    "input_channel": InputChannel(),
    "output_channel": OutputChannel(),
    "block": Block(),
    "n:m": NofM(),
}
"""What masks take as one; blocks are 4 x 4 and n:m is 2:4 unless said otherwise."""
SCHEDULES: dict[str, Schedule] = {"one_shot": OneShot(), "linear": Linear(), "cubic": Cubic()}
"""How sparsity grows; the geometric one depends on where it ends."""
