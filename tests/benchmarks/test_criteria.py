"""The table of criteria: which cells, kept cells, means, heat map and rows, without any network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import criteria


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    criteria._arguments(parser)
    return parser.parse_args(list(given))


def test_the_whole_table_is_the_issue_s() -> None:
    every = list(criteria.cells(arguments()))
    after = [c for c in every if c["step"] != "tuned"]
    assert len(after) == len(criteria.NAMES) * 6 * 3 * 2
    assert {c["seed"] for c in every if c["step"] == "tuned"} == {0}
    assert all(c["network"] == "resnet20" for c in every)
    assert list(criteria.cells(arguments("--collapse")))[-1] == criteria.COLLAPSE


def test_flags_restrict_it_and_kept_cells_are_not_run_again(tmp_path: Path, monkeypatch) -> None:
    runs: list[criteria.Cell] = []

    class Fake:
        def __init__(self, network: str, arguments: argparse.Namespace) -> None:
            assert network == "resnet20"

        def accuracy(self, cell: criteria.Cell) -> float:
            runs.append(cell)
            return 50.0 + cell["seed"]

    monkeypatch.setattr(criteria, "Bench", Fake)
    keep = tmp_path / "cells.jsonl"
    few = arguments("--criteria", "l1,taylor", "--sparsities", "20,60", "--seeds", "0,2", "--keep", str(keep))
    first = criteria.fill(criteria.cells(few), few)
    assert len(runs) == len(first) == 2 * 2 * 2 * 2 + 2
    assert [json.loads(line)["cell"] for line in keep.read_text().splitlines()] == runs
    assert criteria.fill(criteria.cells(few), few) == first
    assert len(runs) == len(first)
    assert criteria.means(first, "refit")["l1"] == {20: 51.0, 60: 51.0}
    assert criteria.means(first, "tuned") == {"l1": {60: 50.0}, "taylor": {60: 50.0}}


def test_rows_say_how_much_of_the_table_there_is() -> None:
    cell = {"network": "resnet20", "criterion": "l1", "sparsity": 20, "seed": 0, "step": "refit"}
    (row,) = criteria.rows_of([{**cell, "accuracy": 90.0}], 1000)
    assert (row.value, row.ok) == (1, False)
    collapse = criteria.rows_of([{**criteria.COLLAPSE, "accuracy": 91.5}], 1000)[1]
    assert (collapse.value, collapse.must, collapse.ok) == (91.5, ">= 90", True)


@pytest.mark.parametrize("value", [10.0, 55.5, 92.0])
def test_the_heat_map_is_xml_with_every_number(value: float) -> None:
    text = criteria.heat_map({"no refit": {"l1": {20: value}}, "refit": {"l1": {20: value}, "l2": {70: 1.0}}})
    found = ["".join(e.itertext()) for e in ElementTree.fromstring(text).iter() if e.tag.endswith("text")]
    assert found.count(f"{value:.1f}") == 2
    assert {"l1", "l2", "20 %", "70 %", "refit", "1.0"} <= set(found)
