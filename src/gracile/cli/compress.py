"""``gracile compress``: carry out a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gracile.errors import GracileError

from .show import console, show_run

if TYPE_CHECKING:
    from gracile.pipeline import Recipe


class StoppedError(GracileError):
    """The user pressed Ctrl-C; what was finished is kept."""


RecipeArgument = Annotated[
    Path, typer.Argument(help="A recipe in YAML; `gracile schema` says what it may hold.")
]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="GRACILE_DATA", help="Folder of data sets and weights.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME when not given.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: steps.tune.epochs=2."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]


def compress(
    recipe: RecipeArgument,
    data_root: DataRoot = None,
    out: Out = None,
    assignments: Assignments = None,
    resume: Resume = False,
) -> None:
    """Compress a model by a recipe; leave the deployable file, run.json and report.html in --out."""
    from gracile.pipeline import load_recipe

    read = load_recipe(recipe, assignments)
    folder = out or Path("runs") / read.name
    again = go_on("compress", recipe, folder, data_root, assignments)
    carry_out(read, folder, data_root=data_root, resume=resume, again=again)


def go_on(verb: str, recipe: Path, out: Path, data_root: Path | None, assignments: list[str] | None) -> str:
    """The command that goes on with a run that was stopped."""
    command = ["gracile", verb, str(recipe), "--out", str(out)]
    command += ["--data-root", str(data_root)] if data_root else []
    command += [word for text in assignments or () for word in ("--set", text)]
    return shlex.join([*command, "--resume"])


def carry_out(recipe: Recipe, out: Path, *, data_root: Path | None, resume: bool, again: str) -> None:
    """Run a recipe, write its report, and say what was gained and lost; ``again`` is how to go on."""
    from gracile import pipeline, report

    try:
        run = pipeline.run(recipe, out, data_root=data_root, resume=resume)
        page = report.write(run, out / "report.html")
    except KeyboardInterrupt as stop:
        found = "Ctrl-C; the steps that were finished are kept"
        raise StoppedError(
            str(out), wanted="to finish the run", found=found, do=f"Go on with: {again}"
        ) from stop
    show_run(run)
    file = out / run.plan["deployed"]
    what = "The weights" if file.suffix == ".safetensors" else "The file to deploy"
    console().print(f"{what}: {file}", soft_wrap=True)
    console().print(f"The report: {page}", soft_wrap=True)
