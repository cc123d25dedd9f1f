"""Edits of a module tree: slices and attributes that carry out a removal, and proofs of them."""

from .attributes import edits as edits
from .branches import find_branches as find_branches
from .branches import prove_removal as prove_removal
from .branches import remove_branches_ as remove_branches_
from .norms import NormNumbers as NormNumbers
from .norms import fold_norm as fold_norm
from .resolve import Resolution as Resolution
from .resolve import probe as probe
from .resolve import resolve as resolve
from .rewire import absorb_masks_ as absorb_masks_
from .rewire import with_parts as with_parts
from .slice import apply as apply
from .slice import apply_ as apply_
from .verify import require as require
from .verify import verify as verify
from .widen import Widened as Widened
from .widen import widen as widen
