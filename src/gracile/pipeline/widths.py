"""Widths that pay: candidates under one budget, quantized, exported and timed; the fastest is taken.

A runtime's kernels work on blocks of channels, so that a layer halved from 16 to 8 channels can be slower
than the whole one. What pays is measured on the runtime it is meant for, not assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gracile import measure, surgery
from gracile.errors import BudgetError
from gracile.prune import Remembered
from gracile.records import PrunePlan, Speed

from .latency import QUICK, available
from .original import int8_file
from .state import Bench, State

if TYPE_CHECKING:
    from .steps.prune import Choice, PruneStep

_RUNS = 11


@dataclass(frozen=True, order=True)
class Option:
    """One way to spend the budget: the multiple that widths are rounded to, and how trunks are pruned."""

    round_to: int
    trunk: Choice | None = None
    """``None`` is what the step says."""

    def __str__(self) -> str:
        return f"{self.round_to}{'' if self.trunk is None else f'-{self.trunk}'}"


_WHOLE = Option(0)
"""The model that is not pruned, timed for comparison."""


def choose(step: PruneStep, state: State, bench: Bench) -> tuple[PrunePlan, tuple[dict[str, Any], ...]]:
    """Plan every option that the step names, time the results, take the fastest.

    Returns:
        The plan, and a row for each option; ``round_to`` 0 is the model without pruning.

    Raises:
        BudgetError: No option meets the budget.
    """
    plans: dict[Option, PrunePlan] = {}
    refused: list[dict[str, Any]] = []
    for trunk in step.choose_trunk or (None,):
        criterion = Remembered(step.scorer(bench))  # groups of another trunk have other units
        for multiple in step.choose_round_to or (step.round_to,):
            option = Option(multiple, trunk)
            try:
                plans[option] = step.plan(state, bench, multiple, criterion, trunk=trunk)
            except BudgetError as error:
                why = f"the budget cannot be met: {error.found}"
                refused.append(_row(option, None, None, False, why))
    if not plans:
        raise BudgetError(
            "choose_trunk" if step.choose_trunk else "choose_round_to",
            wanted="a choice that meets the budget",
            found=str(refused[0]["why"]),
            do="Add smaller multiples or ask for less.",
        )
    speeds = _timed(plans, step, state, bench)
    best = max(plans, key=lambda option: speeds[option].images_per_s)
    rows = [_row(_WHOLE, speeds[_WHOLE], 1.0, False, "for comparison")]
    for option, plan in plans.items():
        kept = plan.macs_after / plan.macs_before
        rows.append(_row(option, speeds[option], kept, option == best, ""))
    return plans[best], (*rows, *refused)


def _timed(
    plans: dict[Option, PrunePlan], step: PruneStep, state: State, bench: Bench
) -> dict[Option, Speed]:
    """Speed of each candidate, quantized to int8; accuracy plays no part, so nothing is refitted."""
    runtime = available(step.measure_on, bench)
    options = {str(option): option for option in (_WHOLE, *plans)}
    with TemporaryDirectory(prefix="widths-", dir=bench.out) as folder:
        candidates: list[measure.Candidate] = []
        for name, option in options.items():
            model = state.model if option == _WHOLE else surgery.apply(state.model, plans[option])
            path = Path(folder) / f"{name}.onnx"
            bench.tick(f"widths in multiples of {option}", len(candidates), 2 * len(options))
            int8_file(
                replace(state, model=model), bench, QUICK, str(path.relative_to(bench.out)), "candidate"
            )
            candidates.append(measure.Candidate(name=name, runtime=runtime, model=path))
        speeds, _ = measure.bench(candidates, inputs=bench.images, batches=[step.measure_batch], runs=_RUNS)
    return {options[speed.model]: speed for speed in speeds}


def _row(option: Option, speed: Speed | None, kept: float | None, chosen: bool, why: str) -> dict[str, Any]:
    return {
        "round_to": option.round_to,
        "trunk": option.trunk,
        "runtime": speed and speed.runtime,
        "batch": speed and speed.batch,
        "macs_kept": kept,
        "images_per_s": speed and speed.images_per_s,
        "low": speed and speed.images_per_s_low,
        "high": speed and speed.images_per_s_high,
        "chosen": chosen,
        "why": why,
    }
