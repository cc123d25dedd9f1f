"""What depth pruning removes: residual branches, and the modules that stand in for them."""

from __future__ import annotations

from dataclasses import dataclass

from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A residual branch: one summand of a sum.

    ``end`` is the module that gives the summand, of ``rank`` axes; ``inner`` are the other modules of the
    branch that hold parameters. ``whole``: the zeros that stand in have the full shape, since the model adds
    to them in place. ``macs`` and ``params`` are what goes with it, by formula.
    """

    name: str
    end: str
    rank: int
    whole: bool = False
    inner: tuple[str, ...] = ()
    macs: int = 0
    params: int = 0


@dataclass(frozen=True, kw_only=True)
class BranchPlan:
    """A depth pruning: branches that go, in the order in which they were chosen.

    ``divergence`` holds, for each, how far the outputs had moved once it was gone with those before it.
    ``macs_*`` and ``params_*`` are estimates by formula.
    """

    removed: tuple[Branch, ...]
    kept: tuple[str, ...] = ()
    divergence: tuple[float, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    budget: str = ""
    macs_before: int = 0
    macs_after: int = 0
    params_before: int = 0
    params_after: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.budget}: MACs {self.macs_before:,} -> {self.macs_after:,}, "
            f"params {self.params_before:,} -> {self.params_after:,}"
        ]
        moved = self.divergence or (float("nan"),) * len(self.removed)
        lines += [f"  remove {b.name}, divergence {d:.4g}" for b, d in zip(self.removed, moved, strict=True)]
        lines += [f"  keep {name}" for name in self.kept]
        lines += [f"  left alone {s.where}: {s.why}" for s in self.skipped]
        return "\n".join(lines)
