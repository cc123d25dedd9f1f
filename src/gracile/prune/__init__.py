"""Structured pruning: criteria score channels, an allocator meets a budget, a plan is carried out.

One file holds one criterion or one correction. What the surgery itself does is in :mod:`gracile.surgery`.
"""

from .activation import Activation as Activation
from .allocate import allocate as allocate
from .apoz import APoZ as APoZ
from .applying import apply as apply
from .bn_scale import BNScale as BNScale
from .budgets import Budget as Budget
from .budgets import Global as Global
from .budgets import Macs as Macs
from .budgets import Milliseconds as Milliseconds
from .budgets import Params as Params
from .budgets import PerLayer as PerLayer
from .constants import Carried as Carried
from .constants import carry_constants_ as carry_constants_
from .criterion import Criterion as Criterion
from .criterion import Scene as Scene
from .depth import Branches as Branches
from .depth import plan_branches as plan_branches
from .depth import remove_branches as remove_branches
from .fisher import Fisher as Fisher
from .geometric_median import GeometricMedian as GeometricMedian
from .l1 import L1 as L1
from .l2 import L2 as L2
from .lp import Lp as Lp
from .merging import Merged as Merged
from .merging import merge as merge
from .names import BUDGETS as BUDGETS
from .names import CRITERIA as CRITERIA
from .obd import OBD as OBD
from .planning import plan as plan
from .random import Random as Random
from .reconstruct import Refit as Refit
from .reconstruct import reconstruct_ as reconstruct_
from .reconstruction import Reconstruction as Reconstruction
from .similarity import Similarity as Similarity
from .singe import SInGE as SInGE
from .taylor import Taylor as Taylor
from .taylor_weights import TaylorWeights as TaylorWeights
