"""The page: whole, self-contained, safe, and bad news first."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gracile import report
from gracile.errors import StorageError
from gracile.records import Run, from_json, to_json


class Outline(HTMLParser):
    """Checks that tags close in order; collects section names and what would be loaded."""

    VOID = frozenset({"meta", "line", "circle", "polyline", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        self.loads += [value for name in ("src", "href") if (value := known.get(name))]
        if "id" in known:
            self.ids.append(known["id"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, (tag, self.getpos())


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert found.open == []
    return found


def test_every_part_is_there_verdict_first(run: Run) -> None:
    found = outline(report.html(run))
    assert found.ids == [
        "verdict", "accuracy", "speed", "steps", "widths", "layers",
        "training", "proofs", "parity", "skipped", "again",
    ]  # fmt: skip


def test_nothing_is_loaded_and_nothing_runs(run: Run) -> None:
    page = report.html(run)
    assert outline(page).loads == []
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_bad_news_is_marked_and_first(run: Run) -> None:
    page = report.html(run)
    items = re.findall(r'<li class="(\w+)">([^<]*)', page)
    assert [kind for kind, _ in items] == ["bad", "fine", "fine", "fine"]
    assert "slower" in items[0][1]
    assert page.index('class="bad"') < page.index('class="tiles"')


def test_names_from_the_model_are_escaped(run: Run) -> None:
    page = report.html(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_figures_are_those_of_the_record(run: Run) -> None:
    page = report.html(run)
    for text in (
        "91.9 %",
        "2,480",
        "197 kB",
        "-0.7 points",
        "p = 0.17",
        "0.18x",
        "16 → 8",
        "QLinearConv (integer)",
    ):
        assert text in page


def test_source_lines_of_what_was_left_alone(run: Run) -> None:
    assert "resnet.py:88" in report.html(run)


def test_the_width_taken_is_marked(run: Run) -> None:
    row = re.search(r'<tr class="chosen">(.*?)</tr>', report.html(run), re.DOTALL)
    assert row
    assert "taken" in row[1]
    assert "47.0 %" in row[1]
    assert "the budget cannot be met" in report.html(run)


def test_an_empty_record_makes_a_page(run: Run) -> None:
    bare = replace(
        run, comparison=None, speeds=(), ratios=(), steps=(), skips=(), proofs=(), kernels=(), parity=(),
        curves=(), layers=(), notes=(),
    )  # fmt: skip
    assert outline(report.html(bare)).ids == ["verdict", "steps", "again"]


def test_a_record_that_went_through_json_gives_the_same_page(run: Run) -> None:
    assert report.html(from_json(Run, to_json(run))) == report.html(run)


def test_write_is_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    assert report.write(run, tmp_path / "a/report.html").read_text(encoding="utf-8") == report.html(run)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        report.write(run, tmp_path / "file/report.html")


def test_reports_need_no_torch() -> None:
    code = "import sys, gracile.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sparsity_is_drawn_where_a_run_pruned_in_training(run: Run) -> None:
    assert "sparsity" not in report.html(run)
    points = [
        {"epoch": e, "sparsity": s, "layers": {"a": s - 0.1, "b": s + 0.1}} for e, s in ((0, 0.1), (2, 0.8))
    ]
    page = report.html(replace(run, curves=({**run.curves[0], "sparsity": points},)))
    outline(page)
    assert page.count("<title>sparsity, whole model: 80</title>") == 1
    assert page.count("<title>densest layer: 70</title>") == 1
    assert page.count("<title>sparsest layer: 90</title>") == 1
