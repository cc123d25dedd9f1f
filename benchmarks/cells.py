"""Cells of a long benchmark: each is kept as soon as it is done, and not done again after an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Cells:
    """Results by name, in a JSON-lines file where one is given.

    Example:
        >>> cells = Cells(None)
        >>> cells.get("a", lambda: {"value": 1}), cells.get("a", lambda: {"value": 2})
        ({'cell': 'a', 'value': 1}, {'cell': 'a', 'value': 1})
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.done: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.done[entry["cell"]] = entry

    def get(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The kept result of ``name``, or ``compute()``, which is then kept."""
        if name not in self.done:
            self.done[name] = {"cell": name, **compute()}
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(self.done[name]) + "\n")
        return self.done[name]
