"""How results look in a terminal: consoles, the verdict, tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gracile.records import (
    COMPRESSED,
    ORIGINAL,
    Ratio,
    Run,
    Speed,
    bytes_text,
    count_text,
    label,
    number_text,
    ratio_text,
    runtime_text,
)


def console() -> Console:
    """Where results go. Names stay as they are: brackets and colons in them style nothing."""
    return Console(highlight=False, markup=False, emoji=False)


def error_console() -> Console:
    """Where errors and progress go."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def show_run(run: Run) -> None:
    """Print the figures of a run, its verdict, what got worse first, and one line each of gain and loss."""
    screen = console()
    screen.print(_before_after(run))
    for position, sentence in enumerate(run.verdict):
        worse = position < run.verdict_worse
        screen.print(f"{'▼' if worse else '·'} {sentence}", style="red" if worse else None)
    for note in run.notes:
        screen.print(f"! {note}", style="yellow")
    screen.print(f"\nGained: {', '.join(gains(run)) or 'nothing'}.", style="bold")
    screen.print(f"Lost: {'; '.join(losses(run))}.", style="bold")


def gains(run: Run) -> list[str]:
    """What got better, in a few words each."""
    before, after = run.before, run.after
    found = []
    measured = _against_original(run, before.runtime)
    ratio = _times(after.images_per_s, before.images_per_s)
    if ratio and (measured is None or measured.low > 1):
        found.append(f"{ratio} the images a second in {runtime_text(after.runtime)}{_own_share(run)}")
    if ratio := _times(before.size_bytes, after.size_bytes):
        found.append(f"a file {ratio} smaller")
    if ratio := _times(before.macs, after.macs):
        found.append(f"{ratio} fewer multiply-adds")
    if run.comparison is not None and run.comparison.low > 0:
        found.append(f"{run.comparison.difference:.1f} points of accuracy")
    return found


def _times(more: float, less: float) -> str:
    """How many times as much; empty where the two are the same to the digits that are shown."""
    ratio = more / less if less else 0.0
    return ratio_text(ratio) if ratio > 1 and ratio_text(ratio) != ratio_text(1.0) else ""


def _against_original(run: Run, runtime: str) -> Ratio | None:
    """The deployed file's speed against the original's in ``runtime``, where the two were timed in turns."""
    pair = (label(COMPRESSED, run.after.runtime), label(ORIGINAL, runtime), run.after.batch)
    return next((r for r in run.ratios if (r.candidate, r.reference, r.batch) == pair), None)


def _own_share(run: Run) -> str:
    """Where the runtime changed too: what the compression itself brought, against the original in it."""
    own = _against_original(run, run.after.runtime)
    if own is None or run.before.runtime == run.after.runtime:
        return ""
    if own.low <= 1 <= own.high:  # an interval may be wide and clear all the same
        return " (no clear difference from the original there)"
    return f" ({ratio_text(own.ratio)} those of the original there)"


def losses(run: Run) -> list[str]:
    """What got worse, in a few words each; that nothing did is said too."""
    found = []
    if run.comparison is not None and run.comparison.high < 0:
        found.append(f"{-run.comparison.difference:.1f} points of accuracy")
    others = run.verdict_worse - len(found)
    if others > 0:
        found.append(
            f"{'see' if found else 'accuracy within the noise, but see'} the first lines of the verdict"
        )
    if not found:
        found.append(f"nothing that shows on {run.after.n:,} test images")
    return found


def _before_after(run: Run) -> Table:
    before, after = run.before, run.after
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    change = f"{after.accuracy - before.accuracy:+.1f} points"
    table.add_row("accuracy, %", f"{before.accuracy:.1f}", f"{after.accuracy:.1f}", change)
    for name, text, old, new in (
        ("file", lambda size: bytes_text(int(size)), before.size_bytes, after.size_bytes),
        ("multiply-adds", count_text, before.macs, after.macs),
        ("parameters", count_text, before.params, after.params),
        ("images/s", number_text, before.images_per_s, after.images_per_s),
    ):
        if old or new:  # a run that only trains measures no speed
            table.add_row(name, text(old), text(new), ratio_text(new / old) if old else "")
    return table


def speed_table(speeds: tuple[Speed, ...]) -> Table:
    """Throughput and latency with their 95 % intervals."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("model", "runtime"):
        table.add_column(name, overflow="fold")
    for name in ("batch", "images/s", "95 %", "ms a batch", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for speed in speeds:
        table.add_row(
            speed.model,
            runtime_text(speed.runtime),
            str(speed.batch),
            number_text(speed.images_per_s),
            f"{number_text(speed.images_per_s_low)}-{number_text(speed.images_per_s_high)}",
            number_text(speed.latency_ms),
            f"{number_text(speed.latency_ms_low)}-{number_text(speed.latency_ms_high)}",
        )
    return table


def ratio_table(ratios: tuple[Ratio, ...]) -> Table:
    """Paired ratios with their 95 % intervals."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("candidate", "reference"):
        table.add_column(name, overflow="fold")
    for name in ("batch", "times as fast", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for ratio in ratios:
        interval = f"{number_text(ratio.low)}-{number_text(ratio.high)}"
        table.add_row(ratio.candidate, ratio.reference, str(ratio.batch), ratio_text(ratio.ratio), interval)
    return table
