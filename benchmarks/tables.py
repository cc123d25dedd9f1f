"""The committed rows as pages of the documentation: generated, never edited by hand."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, details_path, show_spread, show_value
from gracile.records import atomic_bytes

TOPICS: dict[str, tuple[str, ...]] = {
    "The main job": ("main_job", "zoo", "int8"),
    "Pruning": (
        "pruning", "channels", "elements", "less_is_more", "selective_add", "speech", "criteria",
        "side_by_side", "theory", "throughput", "influence",
    ),
    "Quantization without training": (
        "ptq", "data_free", "pruned_bits", "execution", "archive", "quant_side_by_side", "saturation",
        "ranges",
    ),
    "Quantization-aware training": ("qat", "qat_time", "qat_side_by_side", "lsq_start"),
    "Decomposition and folding": ("joint", "factors", "decompose", "folding"),
}  # fmt: skip
"""Headings of the overview, and the benchmarks below each; what is not listed comes last."""
NOTE = "<!-- Made by `python -m benchmarks tables` from the JSON beside it. -->"


def write_tables(folder: Path, results: Mapping[str, Sequence[Row]], readme: Path | None = None) -> None:
    """Write ``NAME.md`` for each benchmark, ``index.md`` for all, and the marked tables of ``readme``."""
    for path, text in pages(folder, results, readme).items():
        atomic_bytes(path, text)


def pages(folder: Path, results: Mapping[str, Sequence[Row]], readme: Path | None = None) -> dict[Path, str]:
    """What :func:`write_tables` writes, by path."""
    texts = {
        folder / f"{name}.md": page(
            name, rows, _details(folder / f"{name}.json"), figure=(folder / f"{name}.svg").exists()
        )
        for name, rows in results.items()
    }
    texts[folder / "index.md"] = index(results)
    if readme and readme.exists():
        texts[readme] = fill(readme.read_text(), results)
    return texts


def page(
    name: str, rows: Sequence[Row], details: Sequence[Mapping[str, Any]] = (), *, figure: bool = False
) -> str:
    """One benchmark's page: what it asks, its rows, how they were made and the details."""
    lines = [f"# {title(name)}", "", *summary(name, whole=True), *table(rows), ""]
    lines += [f"![{title(name)}]({name}.svg)", ""] if figure else []
    lines += ["Made again by", "", *[f"    {text}" for text in _distinct(row.command for row in rows)], ""]
    lines += ["Measured on:", "", *[f"- {text}" for text in _distinct(row.hardware for row in rows)]]
    if details:
        lines += ["", "## Details", "", *detail_table(details)]
    return "\n".join([*lines, "", NOTE]) + "\n"


def index(results: Mapping[str, Sequence[Row]]) -> str:
    """The page that lists all benchmarks, by topic."""
    lines = ["# Results", ""]
    lines += [
        "Each figure is made by a command, names what it was measured on, and has a bar that it must clear;",
        "`python -m benchmarks check` fails when a committed figure does not.",
    ]
    listed = {name for names in TOPICS.values() for name in names}
    rest = tuple(name for name in results if name not in listed)
    for topic, names in (TOPICS | {"More": rest}).items():
        if found := [name for name in names if name in results]:
            lines += ["", f"## {topic}", "", "| benchmark | what it asks | figures | all clear their bar |"]
            lines += ["|---|---|---|---|", *[_entry(name, results[name]) for name in found]]
    return "\n".join([*lines, "", NOTE]) + "\n"


def _entry(name: str, rows: Sequence[Row]) -> str:
    asked = "".join(summary(name)).partition(". ")[0].removesuffix(".")
    clear = "yes" if all(row.ok for row in rows) else "**no**"
    return f"| [{title(name)}]({name}.md) | {asked} | {len(rows)} | {clear} |"


def summary(name: str, *, whole: bool = False) -> list[str]:
    """What the benchmark's module says of itself: its first sentence, or all of it as lines.

    Example:
        >>> summary("int8")
        ["Int8 in ONNX Runtime: how near to float, how fast beside ONNX Runtime's own quantization."]
    """
    source = Path(__file__).parent / f"{name}.py"
    text = ast.get_docstring(ast.parse(source.read_text())) if source.exists() else None
    if text is None:
        return []
    plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return [*plain.splitlines(), ""] if whole else [" ".join(plain.partition("\n\n")[0].split())]


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
        >>> title("main_job"), title("qat_time")
        ('Main job', 'QAT time')
    """
    words = name.replace("_", " ").capitalize().split()
    return " ".join(word.upper() if word.lower() in ("lsq", "ptq", "qat") else word for word in words)


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
