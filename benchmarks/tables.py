"""The committed rows as pages of the documentation: generated, never edited by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, details_path, show_spread, show_value
from gracile.records import atomic_bytes

NOTE = "<!-- Made by `python -m benchmarks tables` from the JSON beside it. -->"


def write_tables(folder: Path, results: Mapping[str, Sequence[Row]], readme: Path | None = None) -> None:
    """Write ``NAME.md`` for each benchmark, ``index.md`` for all, and the marked tables of ``readme``."""
    for path, text in pages(folder, results, readme).items():
        atomic_bytes(path, text)


def pages(folder: Path, results: Mapping[str, Sequence[Row]], readme: Path | None = None) -> dict[Path, str]:
    """What :func:`write_tables` writes, by path."""
    texts = {
        folder / f"{name}.md": page(name, rows, _details(folder / f"{name}.json"))
        for name, rows in results.items()
    }
    texts[folder / "index.md"] = index(results)
    if readme and readme.exists():
        texts[readme] = fill(readme.read_text(), results)
    return texts


def page(name: str, rows: Sequence[Row], details: Sequence[Mapping[str, Any]] = ()) -> str:
    """One benchmark's page: its rows, how they were made and the details."""
    lines = [f"# {title(name)}", "", *table(rows), ""]
    lines += ["Made again by", "", *[f"    {text}" for text in _distinct(row.command for row in rows)], ""]
    lines += ["Measured on:", "", *[f"- {text}" for text in _distinct(row.hardware for row in rows)]]
    if details:
        lines += ["", "## Details", "", *detail_table(details)]
    return "\n".join([*lines, "", NOTE]) + "\n"


def index(results: Mapping[str, Sequence[Row]]) -> str:
    """The page that lists all benchmarks."""
    lines = ["# Results", ""]
    lines += [
        "Each figure is made by a command, names what it was measured on, and has a bar that it must clear;",
        "`python -m benchmarks check` fails when a committed figure does not.",
        "",
        "| benchmark | figures | all clear their bar |",
        "|---|---|---|",
    ]
    lines += [
        f"| [{title(name)}]({name}.md) | {len(rows)} | {'yes' if all(row.ok for row in rows) else '**no**'} |"
        for name, rows in results.items()
    ]
    return "\n".join([*lines, "", NOTE]) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as lines of a markdown table."""
    lines = ["| what | value | 95 % interval | n | must be | ok |", "|---|---:|---|---:|---|---|"]
    lines += [
        f"| {row.id} | {show_value(row)} | {show_spread(row)} | {row.n:,} | {row.must} | "
        f"{'yes' if row.ok else '**no**'} |"
        for row in rows
    ]
    return lines


def detail_table(details: Sequence[Mapping[str, Any]]) -> list[str]:
    """Details as lines of a markdown table; the columns are the keys in their first order."""
    columns = list(dict.fromkeys(key for entry in details for key in entry))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for entry in details:
        lines.append("| " + " | ".join(_cell(entry.get(column)) for column in columns) + " |")
    return lines


def fill(text: str, results: Mapping[str, Sequence[Row]]) -> str:
    """Replace what stands between ``<!-- results:NAME -->`` and ``<!-- /results -->`` by that table."""

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        rows = table(results[name]) if name in results else ["*Not measured yet.*"]
        return "\n".join([f"<!-- results:{name} -->", *rows, "<!-- /results -->"])

    return re.sub(r"<!-- results:(?P<name>\w+) -->.*?<!-- /results -->", replace, text, flags=re.DOTALL)


def title(name: str) -> str:
    """A heading for a benchmark's name.

    Example:
        >>> title("main_job")
        'Main job'
    """
    return name.replace("_", " ").capitalize()


def _details(path: Path) -> list[dict[str, Any]]:
    beside = details_path(path)
    loaded: list[dict[str, Any]] = json.loads(beside.read_text()) if beside.exists() else []
    return loaded


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _distinct(texts: Any) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
