"""The entry point: verbs, and how every error ends - with a sentence and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from gracile.errors import GracileError, StorageError

from .analyze import analyze
from .bench import bench
from .compress import compress
from .demo import demo
from .inspect import inspect
from .pack import pack, unpack
from .report import report
from .schema import schema
from .show import error_console
from .train import train

app = typer.Typer(
    name="gracile",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Makes a trained PyTorch network smaller and faster, proves what it did on your own model, and "
    "hands over the file you deploy.",
)
for verb in (demo, train, compress, inspect, analyze, bench, pack, unpack, report, schema):
    app.command()(verb)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gracile {version('gracile')}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error arose.")
    ] = False,
) -> None:
    """Options of all verbs; ``--traceback`` is taken out before (it may stand anywhere)."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and end the process: 0 done, 1 failed, 2 wrong use."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    trace = "--traceback" in given
    sys.exit(run([word for word in given if word != "--traceback"], trace=trace))


def run(arguments: list[str], *, trace: bool = False) -> int:
    """Run the command and return its exit code."""
    try:
        app(arguments, prog_name="gracile")
    except SystemExit as stop:  # typer ends so, after help and wrong use too; 130 is its Ctrl-C
        if stop.code != 130:
            return stop.code if isinstance(stop.code, int) else 1
        error_console().print("Stopped by Ctrl-C.")
        return 1
    except KeyboardInterrupt:
        error_console().print("Stopped by Ctrl-C.")
        return 1
    except Exception as error:
        if trace:
            traceback.print_exc()
        return _explain(error, trace)
    return 0


def _explain(error: Exception, traced: bool) -> int:
    """Say what happened and return the exit code."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        do = "Free some space, then run the same command with --resume."
        where = str(error.filename or "disk")
        error = StorageError(where, wanted="space for a file", found="none left", do=do)
    console = error_console()
    if isinstance(error, GracileError):
        console.print(f"[bold red]error[/] {type(error).__name__}", markup=True)
        for name in ("where", "wanted", "found", "do"):
            text = getattr(error, name)
            if text:
                console.print(f"  {name:<6}  {text}", soft_wrap=True)
        return error.exit_code
    console.print(f"unexpected {type(error).__name__}: {error}", style="bold red")
    if not traced:
        console.print("This is a bug in Gracile or in code that it called; --traceback shows where.")
    return 1
