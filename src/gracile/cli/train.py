"""``gracile train``: carry out a recipe that only trains, for what has no weights yet."""

from __future__ import annotations

from pathlib import Path

from gracile.errors import UsageError

from .compress import Assignments, DataRoot, Out, RecipeArgument, Resume, carry_out, go_on


def train(
    recipe: RecipeArgument,
    data_root: DataRoot = None,
    out: Out = None,
    assignments: Assignments = None,
    resume: Resume = False,
) -> None:
    """Train by a recipe of `train` steps; leave weights.safetensors, run.json, report.html in --out."""
    from gracile.pipeline import load_recipe

    read = load_recipe(recipe, assignments)
    if not read.only_trains:
        others = ", ".join(step.step for step in read.steps if not step.makes_original)
        do = "Take these steps out, or carry the whole recipe out with `gracile compress`."
        raise UsageError(str(recipe), wanted="a recipe whose steps are all `train`", found=others, do=do)
    folder = out or Path("runs") / read.name
    again = go_on("train", recipe, folder, data_root, assignments)
    carry_out(read, folder, data_root=data_root, resume=resume, again=again)
