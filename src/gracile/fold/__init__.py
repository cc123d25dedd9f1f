"""Folding: normalisations that go into the layers before them, exactly."""

from .batch_norm import apply as apply
from .batch_norm import apply_structure as apply_structure
from .batch_norm import plan as plan
