"""Which layers without an activation between them become one, and what goes before that."""

from __future__ import annotations

from dataclasses import dataclass

from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Two layers (dotted names) that become one in the place of the first; the second goes.

    ``kind`` is ``chain`` where the second reads what the first gives and nothing else does; ``flat`` where it
    is a linear layer that reads a convolution's image of the size ``space`` as one vector; ``parallel`` where
    both read the same and are added; then zeros of ``rank`` axes stand in for the second, of the full shape
    when ``whole``. ``macs_*`` are multiply-adds of the two by formula, for one image.
    """

    first: str
    second: str
    kind: str = "chain"
    rank: int = 0
    whole: bool = False
    macs_before: int = 0
    macs_after: int = 0
    space: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ConstantWeight:
    """``layer`` computes its weight from parameters alone; ``shape`` is that of an input it runs on."""

    layer: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FusePlan:
    """Constant weights, then dead modules, then fusions in their order; numbers come from the model."""

    fusions: tuple[Fusion, ...]
    skipped: tuple[Skipped, ...] = ()
    constants: tuple[ConstantWeight, ...] = ()
    dead: tuple[str, ...] = ()

    def __str__(self) -> str:
        before, after = sum(f.macs_before for f in self.fusions), sum(f.macs_after for f in self.fusions)
        lines = [f"{len(self.fusions)} fusions, MACs of these layers {before:,} -> {after:,}"]
        lines += [f"  {constant.layer} gets the weight that it computes" for constant in self.constants]
        lines += [f"  {name} never runs and goes" for name in self.dead]
        lines += [f"  {f.first} and {f.second} become one ({f.kind})" for f in self.fusions]
        lines += [f"  {skip.where} stays: {skip.why}" for skip in self.skipped]
        return "\n".join(lines)
