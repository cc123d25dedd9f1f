"""Scores that are worked out once, for plans that differ in how many channels stay."""

from __future__ import annotations

from dataclasses import dataclass, field

from .criterion import Criterion, Scene, Scores


@dataclass(frozen=True)
class Remembered:
    """A criterion that scores a model once: candidates differ in how many channels stay, not in scores.

    Example:
        >>> from gracile.prune import L1
        >>> Remembered(L1()).marginal
        False
    """

    criterion: Criterion
    scores: Scores = field(default_factory=dict)

    @property
    def marginal(self) -> bool:
        """As the criterion's own."""
        return self.criterion.marginal

    @property
    def needs_data(self) -> bool:
        """As the criterion's own."""
        return self.criterion.needs_data

    @property
    def needs_labels(self) -> bool:
        """As the criterion's own."""
        return self.criterion.needs_labels

    def __call__(self, scene: Scene) -> Scores:
        """Score what was not scored before."""
        if any(group.name not in self.scores for group in scene.groups):
            self.scores.update(self.criterion(scene))
        return {group.name: self.scores[group.name] for group in scene.groups}

    def __str__(self) -> str:
        return str(self.criterion)
