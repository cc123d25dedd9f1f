"""What the models of a run are called where they are measured beside one another."""

from __future__ import annotations

ORIGINAL = "original"
INT8_ONLY = "int8 only"
COMPRESSED = "compressed"


def label(model: str, runtime: str) -> str:
    """Name a model on a runtime, as candidates and references of ratios are named.

    Example:
        >>> label(COMPRESSED, "ort")
        'compressed in ort'
    """
    return f"{model} in {runtime}"
