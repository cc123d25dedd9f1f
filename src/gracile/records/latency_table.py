"""Measured time of a model's layers over the widths of its channel groups."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupLatency:
    """Milliseconds of the layers that a group belongs to, at each width: ``(units kept, ms)``, rising.

    A layer between two groups counts half for each.
    """

    name: str
    points: tuple[tuple[int, float], ...]

    def at(self, kept: int) -> float:
        """Milliseconds at a width that was measured.

        Raises:
            KeyError: It was not.
        """
        return dict(self.points)[kept]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """What widths cost on ``runtime`` at batch size ``batch``; ``rest`` is the time that no group changes."""

    runtime: str
    batch: int
    groups: tuple[GroupLatency, ...]
    rest: float = 0.0

    @property
    def whole(self) -> float:
        """Milliseconds of the model as it is."""
        return self.rest + sum(group.points[-1][1] for group in self.groups)

    def __str__(self) -> str:
        lines = [f"{self.runtime}, batch {self.batch}: {self.whole:.3g} ms, {self.rest:.3g} ms in no group"]
        for group in self.groups:
            points = ", ".join(f"{kept}: {ms:.3g}" for kept, ms in group.points)
            lines.append(f"  {group.name}: {points}")
        return "\n".join(lines)
