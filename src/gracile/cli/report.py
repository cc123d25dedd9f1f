"""``gracile report``: write the page of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .show import console, show_run


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or its run.json.")],
    out: Annotated[Path | None, typer.Option(help="The page; report.html beside run.json otherwise.")] = None,
) -> None:
    """Write the HTML report of a finished run and print its verdict; needs no torch."""
    from gracile.records import read_run
    from gracile.report import write

    record = read_run(run)
    page = write(record, out or (run if run.is_dir() else run.parent) / "report.html")
    show_run(record)
    console().print(f"The report: {page}", soft_wrap=True)
