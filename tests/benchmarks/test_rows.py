"""Rows compute their own verdict, survive JSON, and the check trusts nothing but value and must."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.__main__ import main
from benchmarks.rows import Row, benchmark_main, details_path, hardware, passes, read_rows, write_rows
from gracile.errors import BadArgument, StorageError

ROW = Row(
    id="accuracy",
    value=92.1,
    unit="%",
    n=1000,
    spread=(90.2, 93.6),
    must=">= 91.8",
    command="c",
    hardware="h",
)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_each_comparison_agrees_with_pythons(value: float, bound: float) -> None:
    wanted = {">=": value >= bound, "<=": value <= bound, ">": value > bound, "<": value < bound}
    assert {sign: passes(value, f"{sign} {bound!r}") for sign in wanted} == wanted
    assert passes(value, f"== {value!r}")


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_was_not_measured_never_passes(value: float | None) -> None:
    assert not passes(value, "<= 1e9")
    assert not passes(value, "")


@pytest.mark.parametrize("must", ["98.5", ">=98.5", ">= many", "~ 3"])
def test_a_bar_that_is_no_comparison_is_refused(must: str) -> None:
    with pytest.raises(BadArgument, match=r">= 98\.5"):
        Row(id="a", value=1.0, unit="", n=1, must=must)


def test_rows_survive_json(tmp_path: Path) -> None:
    rows = [ROW, Row(id="b", value=None, unit="", n=0)]
    write_rows(tmp_path / "a.json", rows)
    assert read_rows(tmp_path / "a.json") == rows
    keys = set(json.loads((tmp_path / "a.json").read_text())[0])
    assert keys == {"id", "value", "unit", "n", "spread", "must", "ok", "command", "hardware"}


def test_two_rows_with_one_id_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="accuracy"):
        write_rows(tmp_path / "a.json", [ROW, ROW])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{", '[{"id": "a"}]', '[{"colour": 1}]'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StorageError, match=r"a\.json"):
        read_rows(tmp_path / "a.json")
    assert main(["check", "--results", str(tmp_path)]) == 2


def test_check_passes_good_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "a.json", [ROW])
    where = ["--results", str(tmp_path), "--readme", str(tmp_path / "README.md")]
    assert main(["tables", *where]) == 0
    capsys.readouterr()
    assert main(["check", *where]) == 0
    assert "1 committed rows of 1 benchmarks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 91.7}, "a, accuracy: is 91.7 %, must be >= 91.8."),
        ({"value": None}, "a, accuracy: is None"),
        ({"must": ""}, "a, accuracy: has no must."),
        ({"command": ""}, "does not say how or on what"),
        ({"hardware": ""}, "does not say how or on what"),
    ],
)
def test_check_names_the_bad_row_and_does_not_trust_ok(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str
) -> None:
    write_rows(tmp_path / "a.json", [ROW])
    entries = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps([entries[0] | change | {"ok": True}]))
    assert main(["check", "--results", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err


def test_check_fails_on_an_empty_file_and_on_damaged_details(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    assert main(["check", "--results", str(tmp_path)]) == 1
    write_rows(tmp_path / "a.json", [ROW])
    details_path(tmp_path / "a.json").write_text("{")
    assert main(["check", "--results", str(tmp_path)]) == 1


def test_hardware_is_one_line_naming_what_ran() -> None:
    text = hardware()
    assert "\n" not in text
    assert all(word in text for word in ("cores", "Python", "torch", "onnxruntime"))


def test_benchmark_main_fills_in_and_writes(tmp_path: Path) -> None:
    def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, object]]]:
        row = Row(id="a", value=float(arguments.size), unit="", n=1, must=">= 3")
        return [row], [{"model": "tiny", "seconds": 0.5}]

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, default=1)

    out = tmp_path / "new" / "toy.json"
    argv = ["--json", str(out), "--size", "3"]
    assert benchmark_main(run, name="toy", arguments=arguments, argv=argv) == 0
    (row,) = read_rows(out)
    assert row.command == "python -m benchmarks.toy --size 3 --json docs/results/toy.json"
    assert row.hardware == hardware()
    assert json.loads(details_path(out).read_text()) == [{"model": "tiny", "seconds": 0.5}]
    assert benchmark_main(run, name="toy", arguments=arguments, argv=["--size", "2"]) == 1
