"""A progress bar for training, when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[str], None]


@contextmanager
def training_bar(progress: bool | Progress, *, total: int, done: int = 0) -> Iterator[Advance]:
    """Give a function that moves the bar by one step and sets its text.

    Args:
        progress: True makes a bar of its own, a ``Progress`` gets another task, False shows nothing.
        total: Steps of the whole run.
        done: Steps that an interrupted run had done.
    """
    if progress is False:
        yield lambda text: None
        return
    own = progress is True
    bars = (
        Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        if progress is True
        else progress
    )
    with bars if own else nullcontext():
        task = bars.add_task("training", total=total, completed=done)
        yield lambda text: bars.update(task, advance=1, description=text)
