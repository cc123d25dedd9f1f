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
class FoldPart:
    """What one layer takes of a norm ``a x + c``: a run of its channels, of outputs or of inputs.

    The values at that side become ``v' = a v + share c``, or the inverse of it when ``undo``; the layer is
    changed so that it gives those, or still computes the same from them. Index ``start + i`` of the ``count``
    ones belongs to the norm's channel ``channel + i // repeat``. ``space`` is the size of the image that is
    read where a border map has to make up for padding with zeros, else empty.
    """

    layer: str
    side: str
    start: int
    count: int
    channel: int
    repeat: int = 1
    share: float = 1.0
    undo: bool = False
    space: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoldMove:
    """A norm, or a module that scales and shifts channels, that goes into layers further away.

    It has ``channels`` many along ``axis`` of ``rank`` axes. Each goes backward, into the layers that give
    what the norm reads, or forward, into those that read what it gives; the parts say so.
    """

    norm: str
    parts: tuple[FoldPart, ...]
    channels: int
    axis: int = 1
    rank: int = 4


@dataclass(frozen=True, kw_only=True)
class FoldPlan:
    """An ordered list of folds, pairs before moves; structure only, the numbers come from the model."""

    pairs: tuple[FoldPair, ...]
    skipped: tuple[Skipped, ...] = ()
    moves: tuple[FoldMove, ...] = ()

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of all norms that go."""
        return (*(pair.norm for pair in self.pairs), *(move.norm for move in self.moves))

    def __str__(self) -> str:
        lines = [f"{len(self.norms)} norms folded, {len(self.skipped)} left"]
        lines += [f"  {pair.norm} into {pair.layer}" for pair in self.pairs]
        for move in self.moves:
            names = dict.fromkeys(f"{part.layer} ({part.side}puts)" for part in move.parts)
            lines.append(f"  {move.norm} into {', '.join(names)}")
        lines += [f"  {skip.where} stays: {skip.why}" for skip in self.skipped]
        return "\n".join(lines)
