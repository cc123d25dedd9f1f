"""How sparsity grows during training: shares of the way, as functions of progress.

Sources: one shot, linear and cubic steps as compared in Zhu and Gupta, "To prune, or not to prune", ICLR
workshops 2018, arXiv 1710.01878, equation 1 (cubic, known as AGP); the same share of what is left in each
round from Frankle and Carbin, "The lottery ticket hypothesis", ICLR 2019, arXiv 1803.03635, section 2.

A schedule is any function from progress (0 at the first step, 1 at the last) to the share of the way from the
initial to the final sparsity, neither falling nor leaving 0 to 1. With initial sparsity ``a`` and final
``b``, the sparsity at progress ``p`` is ``a + (b - a) schedule(p)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gracile.errors import BadArgument

Schedule = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class OneShot:
    """All at once, at the beginning.

    Example:
        >>> OneShot()(0.0)
        1.0
    """

    def __call__(self, progress: float) -> float:
        """Always 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear:
    """In equal steps: ``p``.

    Example:
        >>> Linear()(0.3)
        0.3
    """

    def __call__(self, progress: float) -> float:
        """Share of the way."""
        return progress


@dataclass(frozen=True, kw_only=True)
class Cubic:
    """Fast first, slow at the end, when what goes matters more: ``1 - (1 - p)^3``.

    Example:
        >>> Cubic()(0.5)
        0.875
    """

    def __call__(self, progress: float) -> float:
        """Share of the way."""
        return 1.0 - (1.0 - progress) ** 3


@dataclass(frozen=True, kw_only=True)
class Geometric:
    """The same share of what is left in each step: ``(1 - (1 - s)^p) / s`` for final sparsity ``s``.

    Example:
        >>> round(Geometric(sparsity=0.75)(0.5) * 0.75, 6)  # half of the weights, then half of that half
        0.5
    """

    sparsity: float

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise BadArgument("sparsity", wanted="between 0 and 1", found=f"sparsity={self.sparsity}")

    def __call__(self, progress: float) -> float:
        """Share of the way."""
        return float((1.0 - (1.0 - self.sparsity) ** progress) / self.sparsity)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Iterative pruning: ``n`` rounds at equal distances, the first at the beginning.

    Round ``i`` of ``n`` begins at progress ``(i - 1) / n`` and brings the sparsity to ``shape(i / n)``; what
    lies between is training. Over ``n k`` epochs, ``k`` follow each round.

    Example:
        >>> [round(Rounds(n=2)(p), 3) for p in (0.0, 0.4, 0.5, 1.0)]
        [0.5, 0.5, 1.0, 1.0]
    """

    n: int
    shape: Schedule = Linear()

    def __post_init__(self) -> None:
        if self.n < 1:
            raise BadArgument("n", wanted="at least 1", found=f"n={self.n}")

    def __call__(self, progress: float) -> float:
        """Share of the way."""
        begun = min(int(progress * self.n + 1e-9) + 1, self.n)
        return self.shape(begun / self.n)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When something happens in training: from step ``begin`` to step ``end``, every ``every`` steps.

    ``end`` is always one of the moments.

    Raises:
        BadArgument: ``end`` lies before ``begin``, or ``every`` is below 1.

    Example:
        >>> pace = Pace(begin=10, end=20, every=4)
        >>> [pace.moment(step) for step in (9, 10, 13, 14, 20, 99)]
        [None, 10, 10, 14, 20, 20]
        >>> pace.progress(14)
        0.4
    """

    begin: int = 0
    end: int
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end:
            wanted = f"from 0 to end={self.end}"
            raise BadArgument("begin", wanted=wanted, found=f"begin={self.begin}")
        if self.every < 1:
            raise BadArgument("every", wanted="at least 1", found=f"every={self.every}")

    def moment(self, step: int) -> int | None:
        """The latest moment that is not behind ``step``; ``None`` before the first."""
        if step < self.begin:
            return None
        return min(step - (step - self.begin) % self.every, self.end) if step < self.end else self.end

    def progress(self, moment: int) -> float:
        """From 0 at ``begin`` to 1 at ``end``; 1 where they are the same."""
        return (moment - self.begin) / (self.end - self.begin) if self.end > self.begin else 1.0


def share_at(schedule: Schedule, progress: float) -> float:
    """What ``schedule`` says, checked.

    Raises:
        BadArgument: It says something outside 0 to 1.
    """
    share = schedule(progress)
    if not 0 <= share <= 1:
        raise BadArgument("schedule", wanted="shares from 0 to 1", found=f"{share} at progress {progress:g}")
    return share
