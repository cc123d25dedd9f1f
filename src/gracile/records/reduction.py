"""What an in-training reduction did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """One group of channels at one reduction: of ``before`` units, ``after`` stay.

    ``time`` counts what the schedule counts, epochs or steps, from 1; ``threshold`` is what every unit's norm
    lost; ``params`` counts the parameters of the whole model after the reduction.
    """

    time: int
    group: str
    threshold: float
    before: int
    after: int
    params: int
