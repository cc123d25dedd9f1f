"""How a run tells how far it is: a live display, or nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gracile.records import seconds_text


class Reporter(Protocol):
    """What a run tells while it works; a context manager around the whole run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def begin(self, name: str, position: int, total: int) -> None:
        """Stage ``name``, number ``position`` of ``total`` from 0, starts."""
        ...

    def tick(self, text: str, done: float, total: float) -> None:
        """The stage is at ``done`` of ``total``."""
        ...

    def end(self, name: str, summary: str, seconds: float, reused: bool) -> None:
        """The stage is finished, or was before."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...


class Silent:
    """Tells nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def begin(self, name: str, position: int, total: int) -> None:
        """Nothing."""

    def tick(self, text: str, done: float, total: float) -> None:
        """Nothing."""

    def end(self, name: str, summary: str, seconds: float, reused: bool) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Live:
    """A line for each finished stage; below it a bar for the run and one for the stage at work."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, emoji=False)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[text]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self.whole = self.progress.add_task("whole run", text="", total=None)
        self.stage = self.progress.add_task("", text="", total=None, visible=False)

    def __enter__(self) -> Self:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def begin(self, name: str, position: int, total: int) -> None:
        """Move the run's bar and start the stage's."""
        self.progress.update(
            self.whole, completed=position, total=total, text=f"step {position + 1} of {total}"
        )
        self.progress.reset(self.stage, description=name, total=None, visible=True, text="")

    def tick(self, text: str, done: float, total: float) -> None:
        """Move the stage's bar."""
        self.progress.update(self.stage, completed=done, total=total, text=text)

    def end(self, name: str, summary: str, seconds: float, reused: bool) -> None:
        """Print the line of the stage."""
        mark = "[dim]=[/]" if reused else "[green]✓[/]"
        took = "done before" if reused else seconds_text(seconds)
        self.progress.update(self.stage, visible=False)
        told = f"[bold]{escape(name)}[/]  {escape(summary)}"
        self.console.print(f" {mark} {told}  [dim]{took}[/]", soft_wrap=True)

    def note(self, text: str) -> None:
        """Print it at once."""
        self.console.print(f" [yellow]![/] {escape(text)}", soft_wrap=True)
