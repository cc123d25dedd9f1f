"""The committed rows become pages, and the marked place of the README."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.rows import Row, details_path, write_rows
from benchmarks.tables import detail_table, fill, table

ROW = Row(
    id="accuracy",
    value=92.1,
    unit="%",
    n=1000,
    spread=(90.2, 93.6),
    must=">= 91.8",
    command="run me",
    hardware="pc",
)


def test_tables_writes_pages_and_fills_the_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:main_job -->\nold\n<!-- /results -->\nafter\n")
    write_rows(tmp_path / "main_job.json", [ROW])
    details_path(tmp_path / "main_job.json").write_text(json.dumps([{"model": "a|b", "ran": True}]))
    assert main(["tables", "--results", str(tmp_path), "--readme", str(readme)]) == 0
    page = (tmp_path / "main_job.md").read_text()
    assert "| accuracy | 92.1 % | 90.2 to 93.6 | 1,000 | >= 91.8 | yes |" in page
    assert "    run me" in page
    assert "- pc" in page
    assert "| a\\|b | yes |" in page
    assert "The main job: a pretrained ResNet-56" in page
    index = (tmp_path / "index.md").read_text()
    assert "## The main job" in index
    assert re.search(r"\[Main job\]\(main_job.md\) \| The main job: .* \| 1 \| yes", index)
    assert "svg" not in page
    text = readme.read_text()
    assert "| accuracy | 92.1 %" in text
    assert "old" not in text
    assert (text.startswith("before"), text.endswith("after\n")) == (True, True)
    assert main(["tables", "--results", str(tmp_path), "--readme", str(readme)]) == 0
    assert readme.read_text() == text


def test_a_figure_beside_the_rows_is_shown_and_an_unknown_benchmark_listed_last(tmp_path: Path) -> None:
    write_rows(tmp_path / "ptq.json", [ROW])
    write_rows(tmp_path / "mine.json", [ROW])
    (tmp_path / "mine.svg").write_text("<svg/>")
    assert main(["tables", "--results", str(tmp_path), "--readme", str(tmp_path / "README.md")]) == 0
    assert "![Mine](mine.svg)" in (tmp_path / "mine.md").read_text()
    index = (tmp_path / "index.md").read_text()
    assert index.index("[PTQ](ptq.md)") < index.index("## More") < index.index("[Mine](mine.md) |  | 1")


def test_a_marker_without_rows_says_so() -> None:
    assert "Not measured yet" in fill("<!-- results:zoo -->\n<!-- /results -->", {})


def test_check_finds_pages_that_tell_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:main_job -->\n<!-- /results -->\n")
    write_rows(tmp_path / "main_job.json", [ROW])
    where = ["--results", str(tmp_path), "--readme", str(readme)]
    assert main(["check", *where]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("main_job.md", "index.md", "README.md"))
    assert main(["tables", *where]) == 0
    assert main(["check", *where]) == 0
    (tmp_path / "main_job.md").write_text("| accuracy | 99.9 % |")
    assert main(["check", *where]) == 1


def test_a_failing_row_stands_out() -> None:
    assert table([Row(id="a", value=1.0, unit="x", n=1, must=">= 2")])[-1].endswith("| **no** |")


def test_details_with_different_keys_share_columns() -> None:
    lines = detail_table([{"a": 1}, {"b": 0.123456, "c": None}])
    assert lines == ["| a | b | c |", "|---|---|---|", "| 1 |  |  |", "|  | 0.1235 |  |"]
