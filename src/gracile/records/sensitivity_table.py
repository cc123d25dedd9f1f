"""How far a model's outputs move when one group of channels is narrowed alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupSensitivity:
    """``points``: units kept and what the metric says then, from all units down."""

    name: str
    units: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class SensitivityTable:
    """A sensitivity analysis, one group after the other.

    ``metric`` is ``kl`` (divergence of the outputs from the whole model's, in nats) or ``accuracy`` (points
    of accuracy lost); ``ranking`` is the criterion by which channels went, ``images`` the number of inputs.
    ``key`` names everything that the figures depend on.
    """

    metric: str
    ranking: str
    images: int
    groups: tuple[GroupSensitivity, ...]
    key: str = ""

    def __str__(self) -> str:
        lines = [f"{self.metric} by {self.ranking} on {self.images} inputs"]
        for group in self.groups:
            points = ", ".join(f"{kept}: {value:.3g}" for kept, value in group.points)
            lines.append(f"  {group.name} of {group.units}: {points}")
        return "\n".join(lines)
