"""Recipes are read, checked, run step by step, resumed and judged here.

Reading one needs no torch; ``run`` is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from .recipe import DataPart as DataPart
from .recipe import MeasurePart as MeasurePart
from .recipe import ModelPart as ModelPart
from .recipe import Recipe as Recipe
from .recipe import load_recipe as load_recipe
from .recipe import parse_recipe as parse_recipe
from .steps import STEPS as STEPS
from .verdict import Verdict as Verdict
from .verdict import verdict as verdict

if TYPE_CHECKING:
    from .runner import run as run


def __getattr__(name: str) -> Any:
    if name == "run":
        from .runner import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
