"""The stages of a run in order: the recipe's steps, with what is measured before, beside and after them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .compare import Compare
from .original import Int8Only, Original
from .recipe import Recipe
from .schema import Step
from .state import Bench, Outcome, State
from .steps import QuantizeStep
from .steps.training import TrainingStep
from .trained import Start, Trained


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A named piece of work; ``config`` is what its key depends on beside the steps before it.

    ``beside`` marks work that leaves the model as it was, so that nothing after it depends on it;
    ``measured`` asks for the accuracy after it.
    """

    name: str
    kind: str
    config: dict[str, Any]
    work: Callable[[State, Bench], Outcome]
    beside: bool = False
    measured: bool = False


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """List the stages of ``recipe``.

    They are: steps that make the original, the original measured, the same only quantized, the other steps,
    the comparison. A recipe that only trains has nothing to compare but its own start.
    """
    measure = recipe.measure
    steps = [
        Stage(
            name=name,
            kind=step.step,
            config=step.model_dump(exclude={"name"}),
            work=_work(step),
            measured=measure.after_each_step and not step.only_writes,
        )
        for name, step in zip(recipe.step_names, recipe.steps, strict=True)
    ]
    if recipe.only_trains:
        start = _measuring("original", measure.accuracy_config, Start(measure))
        return (start, *steps, _measuring("compare", measure.accuracy_config, Trained(measure)))
    originals = sum(step.makes_original for step in recipe.steps)
    beside = [_measuring("original", measure.accuracy_config, Original(measure))]
    quantize = next((step for step in recipe.steps if isinstance(step, QuantizeStep)), None)
    if quantize and measure.reference_int8 and any(_narrows(step) for step in recipe.steps):
        beside.append(_measuring("int8-only", quantize.model_dump(exclude={"name"}), Int8Only(quantize)))
    last = _measuring("compare", measure.model_dump(), Compare(measure))
    return (*steps[:originals], *beside, *steps[originals:], last)


def _work(step: Step) -> Callable[[State, Bench], Outcome]:
    """What ``step`` does; where it changes the model, a file exported before no longer holds that model."""
    if step.only_writes:
        return step.run
    return lambda state, bench: step.run(replace(state, deployed=""), bench)


def _narrows(step: Step) -> bool:
    return step.structural or (isinstance(step, TrainingStep) and step.less_is_more is not None)


def _measuring(name: str, config: dict[str, Any], work: Callable[[State, Bench], Outcome]) -> Stage:
    return Stage(name=name, kind="measure", config=config, work=work, beside=True)
