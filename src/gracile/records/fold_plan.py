"""Which normalisations go into which layers."""

from __future__ import annotations

from dataclasses import dataclass

from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class FoldPair:
    """``norm`` (dotted name) is folded into ``layer`` (dotted name) and replaced by an identity."""

    layer: str
    norm: str


@dataclass(frozen=True, kw_only=True)
class FoldPlan:
    """An ordered list of folds; structure only, the numbers come from the model."""

    pairs: tuple[FoldPair, ...]
    skipped: tuple[Skipped, ...] = ()
