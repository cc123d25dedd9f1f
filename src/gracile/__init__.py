"""Gracile makes a trained PyTorch network smaller and faster and proves what it did.

``import gracile`` is light: the parts, such as ``gracile.prune``, are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data as data
    from . import decompose as decompose
    from . import errors as errors
    from . import export as export
    from . import fold as fold
    from . import graph as graph
    from . import joint as joint
    from . import measure as measure
    from . import nn as nn
    from . import observe as observe
    from . import pack as pack
    from . import pipeline as pipeline
    from . import prune as prune
    from . import quantize as quantize
    from . import records as records
    from . import report as report
    from . import surgery as surgery
    from . import targets as targets
    from . import testing as testing
    from . import tune as tune
    from . import zoo as zoo
    from .pack import load as load

try:
    __version__ = version("gracile")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_PARTS = (
    "data", "decompose", "errors", "export", "fold", "graph", "joint", "measure", "nn", "observe", "pack",
    "pipeline", "prune", "quantize", "records", "report", "surgery", "targets", "testing", "tune", "zoo",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"gracile.{name}")
    if name == "load":
        return import_module("gracile.pack").load
    raise AttributeError(f"module 'gracile' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS, "load"])
