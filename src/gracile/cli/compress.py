"""``gracile compress``: carry out a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gracile.errors import GracileError

from .show import console, show_run

if TYPE_CHECKING:
    from gracile.pipeline import Recipe


class StoppedError(GracileError):
    """The user pressed Ctrl-C; what was finished is kept."""


def compress(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML; `gracile schema` says what it may hold.")],
    data_root: Annotated[
        Path | None, typer.Option(envvar="GRACILE_DATA", help="Folder of data sets and weights.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME when not given.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: steps.tune.epochs=2."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
) -> None:
    """Compress a model by a recipe; leave the deployable file, run.json and report.html in --out."""
    from gracile.pipeline import load_recipe

    read = load_recipe(recipe, assignments)
    folder = out or Path("runs") / read.name
    command = ["gracile compress", str(recipe), f"--out {folder}"]
    command += [f"--data-root {data_root}"] if data_root else []
    command += [f"--set {text}" for text in assignments or ()]
    carry_out(read, folder, data_root=data_root, resume=resume, again=" ".join([*command, "--resume"]))


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
    console().print(f"The file to deploy: {out / run.plan['deployed']}", soft_wrap=True, markup=False)
    console().print(f"The report: {page}", soft_wrap=True, markup=False)
