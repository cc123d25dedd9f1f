"""Reads our docstrings as they are meant: ``Example:`` is a section of code, and roles are names."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?([^`]+)`")


class Docstrings(griffe.Extension):
    """Changes docstrings as they are read: griffe knows only ``Examples:`` and no roles."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = ROLE.sub(r"`\1`", text)
