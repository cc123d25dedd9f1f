"""Criteria, budgets, granularities and schedules by the names that recipes and the command line use."""

from __future__ import annotations

from .budgets import Budget, Global, Macs, Params, PerLayer
from .criteria.activation import Activation
from .criteria.apoz import APoZ
from .criteria.bn_scale import BNScale
from .criteria.criterion import Criterion
from .criteria.fisher import Fisher
from .criteria.geometric_median import GeometricMedian
from .criteria.l1 import L1
from .criteria.l2 import L2
from .criteria.lp import Lp
from .criteria.obd import OBD
from .criteria.random import Random
from .criteria.reconstruction import Reconstruction
from .criteria.sensitivity import Sensitivity
from .criteria.similarity import Similarity
from .criteria.singe import SInGE
from .criteria.taylor import Taylor
from .criteria.taylor_weights import TaylorWeights
from .masks.entries import EntryCriterion
from .masks.entry_gradient import EntryGradient
from .masks.entry_norm import EntryNorm
from .masks.entry_random import EntryRandom
from .masks.granularity import Block, Element, Granularity, InputChannel, Kernel, NofM, OutputChannel
from .training.schedules import Cubic, Linear, OneShot, Schedule

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
