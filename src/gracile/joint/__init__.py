"""Pruning and decomposition under one budget: each layer loses channels, is factored, or stays as it is."""

from .applying import apply as apply
from .applying import prove as prove
from .planning import SHARES as SHARES
from .planning import plan as plan
