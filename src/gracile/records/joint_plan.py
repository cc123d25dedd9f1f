"""Which layers lose channels, which are factored and which stay as they are, under one budget."""

from __future__ import annotations

from dataclasses import dataclass

from .decompose_plan import DecomposePlan
from .prune_plan import PrunePlan


@dataclass(frozen=True, kw_only=True)
class JointTrial:
    """One way to share out the budget.

    ``by_pruning`` is the part of the saving that removed channels bring, 1 for pruning alone. ``divergence``
    is how far the outputs moved on held-out inputs, ``None`` where the budget could not be met this way
    (``why`` says what was found).
    """

    by_pruning: float
    divergence: float | None
    layers_factored: int = 0
    macs: int = 0
    params: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class JointPlan:
    """Pruning, then a decomposition of what it leaves; the trials say why this much of each.

    ``decompose`` was planned for the model that ``prune`` leaves; its ``*_before`` are of that model.
    """

    prune: PrunePlan
    decompose: DecomposePlan
    trials: tuple[JointTrial, ...]
    by_pruning: float
    budget: str = ""

    @property
    def macs_before(self) -> int:
        """Of the whole model, by formula."""
        return self.prune.macs_before

    @property
    def macs_after(self) -> int:
        """Of what pruning and factoring leave."""
        return self.decompose.macs_after

    @property
    def params_before(self) -> int:
        """Of the whole model, by formula."""
        return self.prune.params_before

    @property
    def params_after(self) -> int:
        """Of what pruning and factoring leave."""
        return self.decompose.params_after

    def __str__(self) -> str:
        lines = [
            f"{self.budget}: MACs {self.macs_before:,} -> {self.macs_after:,}, "
            f"params {self.params_before:,} -> {self.params_after:,}"
        ]
        for trial in self.trials:
            mark = " (chosen)" if trial.by_pruning == self.by_pruning else ""
            found = trial.why if trial.divergence is None else f"outputs move by {trial.divergence:.4g}"
            lines.append(
                f"  {trial.by_pruning:.0%} by pruning, {trial.layers_factored} layers factored: {found}{mark}"
            )
        return "\n".join([*lines, str(self.prune), str(self.decompose)])
