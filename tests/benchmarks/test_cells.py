"""What the long benchmarks share: kept cells, figures, budgets, masks."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.cells import Cells
from benchmarks.figure import write_svg
from benchmarks.side_by_side import smallest_ratio
from benchmarks.theory import TABLE_4, curve, pair
from gracile.report.charts import Series


def test_a_kept_cell_is_not_done_again(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    first = Cells(file).get("a", lambda: {"value": 1})
    again = Cells(file)
    assert again.get("a", lambda: pytest.fail("done twice")) == first
    assert again.get("b", lambda: {"value": 2})["value"] == 2
    assert len(file.read_text().splitlines()) == 2


def test_a_figure_is_xml_with_every_curve(tmp_path: Path) -> None:
    series = [Series(name=f"<{i}>", x=[0, 1, 2], y=[i, 2, 3], colour=i) for i in range(3)]
    write_svg(tmp_path / "a.svg", series, x="sparsity", y="speed-up")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 3
    assert {"<0>", "<1>", "<2>", "sparsity", "speed-up"} <= set(texts)


@pytest.mark.parametrize("limit", [0.0, 0.25, 0.617, 0.99])
def test_the_smallest_ratio_that_meets_a_budget(limit: float) -> None:
    found = smallest_ratio(lambda ratio: ratio >= limit)
    assert limit <= found < limit + 1 / 256


@pytest.mark.parametrize("sparsity", list(TABLE_4))
def test_two_thinned_layers_lose_what_the_formula_says(sparsity: float) -> None:
    assert pair(sparsity) == pytest.approx(100 * (1 - (1 - sparsity) ** 2))
    assert pair(sparsity) == pytest.approx(TABLE_4[sparsity])


def test_more_channels_gone_more_saved() -> None:
    entries = curve("sad", trunk=False)
    gone = [entry["macs_gone"] for entry in entries]
    assert gone[0] == 0
    assert gone == sorted(gone)
    assert entries[-1]["ideal_speedup"] == pytest.approx(100 / (100 - gone[-1]))
