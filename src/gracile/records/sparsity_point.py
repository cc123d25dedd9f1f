"""How sparse a model was at a moment of its training."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SparsityPoint:
    """Shares, from 0 to 1, after ``step`` training steps.

    ``sparsity`` is the share of zeros among the weights that may be masked, or the share of the parameters
    that were removed; ``layers`` the same of each weight (of zeros), or of each group (of channels removed).
    """

    step: int
    sparsity: float
    layers: dict[str, float] = field(default_factory=dict)
