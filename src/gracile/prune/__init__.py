"""Structured pruning: criteria score channels, an allocator meets a budget, a plan is carried out.

One file holds one criterion or one correction. What the surgery itself does is in :mod:`gracile.surgery`.
"""

from .allocate import allocate as allocate
from .applying import Carry as Carry
from .applying import apply as apply
from .budgets import Budget as Budget
from .budgets import Global as Global
from .budgets import Macs as Macs
from .budgets import Params as Params
from .budgets import PerLayer as PerLayer
from .constants import Carried as Carried
from .constants import carry_constants_ as carry_constants_
from .criterion import Criterion as Criterion
from .criterion import Scene as Scene
from .l1 import L1 as L1
from .l2 import L2 as L2
from .names import BUDGETS as BUDGETS
from .names import CRITERIA as CRITERIA
from .planning import plan as plan
from .random import Random as Random
from .reconstruct import Refit as Refit
from .reconstruct import reconstruct_ as reconstruct_
from .reconstruction import Reconstruction as Reconstruction
from .trunks import Trunk as Trunk
from .trunks import trunk_cuts as trunk_cuts
