"""What must hold exactly, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One test on the user's model.

    ``error`` is the largest difference of outputs relative to the largest output; ``effect`` is how far
    the test's change moved the outputs of a model that it must move, so that a proof which cannot fail shows.
    """

    name: str
    passed: bool
    error: float
    tolerance: float
    effect: float = 0.0
    detail: str = ""
