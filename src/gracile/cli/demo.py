"""``gracile demo``: the whole job on data and a model that come with the package."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from .compress import carry_out


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; the next free runs/demo otherwise.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a demo that was stopped.")] = False,
) -> None:
    """Train, prune, tune, fold, quantize, export and measure a small network: under two minutes."""
    from gracile.pipeline import parse_recipe

    text = (files(__package__) / "recipes" / "demo.yaml").read_text(encoding="utf-8")
    folder = out or free_folder(Path("runs"))
    again = shlex.join(["gracile", "demo", "--out", str(folder), "--resume"])
    carry_out(parse_recipe(text, file="demo.yaml"), folder, data_root=None, resume=resume, again=again)


def free_folder(parent: Path) -> Path:
    """The first of ``demo``, ``demo-2``, ``demo-3``... that is not there yet."""
    number, folder = 1, parent / "demo"
    while folder.exists():
        number, folder = number + 1, parent / f"demo-{number + 1}"
    return folder
