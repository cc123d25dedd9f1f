"""What was left alone, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skipped:
    """A place that a technique did not touch.

    ``where`` is a dotted module, parameter or group name, ``source`` the line of the user's code
    (``file:line: text``) when the graph knows it.
    """

    where: str
    why: str
    source: str = ""
