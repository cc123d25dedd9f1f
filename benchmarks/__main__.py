"""``python -m benchmarks check`` and ``python -m benchmarks tables``: the committed results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.rows import Row, details_path, print_table, read_rows
from benchmarks.tables import pages, write_tables
from gracile.errors import GracileError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"


def committed(folder: Path) -> dict[str, list[Row]]:
    """All committed rows, by the name of their benchmark."""
    names = sorted(path for path in folder.glob("*.json") if not path.name.endswith(".details.json"))
    return {path.stem: read_rows(path) for path in names}


def faults(name: str, rows: Sequence[Row]) -> list[str]:
    """What is wrong with the committed rows of one benchmark, a sentence each."""
    found = [] if rows else [f"{name}: holds no rows."]
    for row in rows:
        if not row.must:
            found.append(f"{name}, {row.id}: has no must.")
        elif not row.ok:
            found.append(f"{name}, {row.id}: is {row.value} {row.unit}, must be {row.must}.")
        if not row.command or not row.hardware:
            found.append(f"{name}, {row.id}: does not say how or on what it was measured.")
    return found


def check(folder: Path, readme: Path) -> int:
    """Fail on any committed row that does not clear its bar or has none, and on pages that tell otherwise."""
    results = committed(folder)
    wrong = [fault for name, rows in results.items() for fault in faults(name, rows)]
    unreadable = [name for name in results if not _readable(folder, name)]
    wrong += [f"{name}: its details cannot be read." for name in unreadable]
    expected = {} if unreadable else pages(folder, results, readme)
    for path, text in expected.items():
        if not path.exists() or path.read_text() != text:
            wrong.append(f"{path.name}: is not what the rows say; run `python -m benchmarks tables`.")
    console = Console(stderr=bool(wrong), highlight=False, soft_wrap=True)
    for line in wrong:
        console.print(f"[red]{line}[/]")
    count = sum(map(len, results.values()))
    if not wrong:
        console.print(f"{count} committed rows of {len(results)} benchmarks clear their bars.")
    return 1 if wrong else 0


def _readable(folder: Path, name: str) -> bool:
    path = details_path(folder / f"{name}.json")
    if not path.exists():
        return True
    try:
        return isinstance(json.loads(path.read_text()), list)
    except ValueError:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands.

    Returns:
        The exit code: 0 good, 1 a row fails, 2 the results cannot be read.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", choices=("check", "tables", "show"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the committed rows")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="page with table markers")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "check":
            return check(arguments.results, arguments.readme)
        results = committed(arguments.results)
        if arguments.command == "tables":
            write_tables(arguments.results, results, arguments.readme)
        for rows in results.values():
            print_table(rows)
    except GracileError as error:
        Console(stderr=True).print(f"[red]{error}[/]")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
