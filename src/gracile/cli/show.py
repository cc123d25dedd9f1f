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
    """Where results go."""
    return Console(highlight=False)


def error_console() -> Console:
    """Where errors and progress go."""
    return Console(stderr=True, highlight=False)


def show_run(run: Run) -> None:
    """Print the figures of a run, its verdict, what got worse first, and one line each of gain and loss."""
    screen = console()
    screen.print(_before_after(run))
    for position, sentence in enumerate(run.verdict):
        worse = position < run.verdict_worse
        screen.print(f"{'▼' if worse else '·'} {sentence}", style="red" if worse else None, markup=False)
    for note in run.notes:
        screen.print(f"! {note}", style="yellow", markup=False)
    screen.print(f"\nGained: {', '.join(gains(run)) or 'nothing'}.", style="bold", markup=False)
    screen.print(f"Lost: {'; '.join(losses(run))}.", style="bold", markup=False)


def gains(run: Run) -> list[str]:
    """What got better, in a few words each."""
    before, after = run.before, run.after
    found = []
    if after.images_per_s > before.images_per_s > 0:
        ratio = ratio_text(after.images_per_s / before.images_per_s)
        found.append(f"{ratio} the images a second in {runtime_text(after.runtime)}{_own_share(run)}")
    if after.size_bytes < before.size_bytes:
        found.append(f"a file {ratio_text(before.size_bytes / after.size_bytes)} smaller")
    if after.macs < before.macs:
        found.append(f"{ratio_text(before.macs / after.macs)} fewer multiply-adds")
    if run.comparison is not None and run.comparison.low > 0:
        found.append(f"{run.comparison.difference:.1f} points of accuracy")
    return found


def _own_share(run: Run) -> str:
    """Where the runtime changed too: what the compression itself brought, against the original in it."""
    runtime, batch = run.after.runtime, run.after.batch
    if run.before.runtime == runtime:
        return ""
    pair = (label(COMPRESSED, runtime), label(ORIGINAL, runtime))
    own = next((r for r in run.ratios if (r.candidate, r.reference) == pair and r.batch == batch), None)
    if own is None:
        return ""
    if not own.meaningful:
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
