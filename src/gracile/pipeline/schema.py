"""What every part of a recipe has in common, and the interface of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from torch import nn

    from .state import Bench, Outcome, State


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What runs, steps and files may be called: names of folders on every system."""
MEASURED = ("original", "int8-only", "compare")
"""Stages that every run may have beside its steps."""


class Part(BaseModel):
    """A piece of a recipe: unknown keys are refused and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Step(Part, ABC):
    """One technique in a recipe: its fields are what the recipe says, ``run`` is what it does.

    To add a technique: write ``pipeline/steps/NAME.py`` with a subclass whose ``step`` is
    ``Literal["NAME"]``, and enter it in ``STEPS``.
    """

    makes_original: ClassVar[bool] = False
    """The model it leaves is the one that the rest of the run is compared with."""
    after_quantize: ClassVar[bool] = False
    """It may follow a step that quantizes."""
    quantizes: ClassVar[bool] = False
    """It makes integers of weights; only an export or an archive may follow."""
    needs_unmasked: ClassVar[bool] = False
    """It makes other weights of those there are, so none may be zero for good before it."""
    only_writes: ClassVar[bool] = False
    """It leaves the model as it is and writes a file of it."""
    structural: ClassVar[bool] = False
    """It makes the model narrower or shorter, so that an uncompressed int8 model is a fair reference."""

    step: str
    name: str = Field(default="", pattern=rf"^({NAME})?$")
    """Name of the step in the report and in ``--set steps.NAME.field=value``; the kind when empty."""

    @field_validator("name")
    @classmethod
    def _not_a_stage(cls, name: str) -> str:
        if name in MEASURED:
            raise ValueError(f"another name than {', '.join(MEASURED)}, which are measured in every run")
        return name

    @property
    def makes_masks(self) -> bool:
        """Whether it leaves weights that are zero for good."""
        return False

    def check(self) -> None:
        """Refuse fields that do not fit together, before any work; nothing beyond the schema by default."""

    @abstractmethod
    def run(self, state: State, bench: Bench) -> Outcome:
        """Take the model one step further; ``state.model`` may be changed in place."""

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give a freshly built ``model`` the structure that this kind of step left, from its saved plan.

        Only shapes matter: the numbers are loaded afterwards.
        """
        raise NotImplementedError(f"{cls.__name__} changes no structure")
