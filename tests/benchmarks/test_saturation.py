"""Which files must not lose accuracy without VNNI, and where the benchmark refuses to run."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from benchmarks import saturation
from gracile.errors import UsageError


def entry(kind: str, runtime: str, lost: float) -> dict[str, Any]:
    speed = {"throughput_over_float": 1.5, "throughput_low": 1.4, "throughput_high": 1.6}
    found = {
        "file": kind,
        "runtime": runtime,
        "n": 10,
        "points_lost": lost,
        "low": lost - 1,
        "high": lost + 1,
    }
    return found | (speed if runtime == "ort" else {})


def test_only_what_cannot_overflow_has_a_bar() -> None:
    kinds = [*saturation.OURS, *saturation.THEIRS]
    entries = [entry(kind, runtime, 0.6) for kind in kinds for runtime in ("ort", "openvino")]
    rows = {row.id: row for row in saturation.rows_of({"name": "net", "runs": 15, "entries": entries})}
    lost = [name for name in rows if name.endswith("points_lost")]
    assert sorted(lost) == sorted(
        f"saturation.net.{kind}.{runtime}.points_lost"
        for kind in ("half_range", "full_range_unsigned_weights")
        for runtime in ("ort", "openvino")
    )
    assert not any(rows[name].ok for name in lost)
    assert rows["saturation.net.half_range.over_float"].ok
    assert rows["saturation.net.half_range.over_float"].n == 15


def test_there_is_nothing_to_see_with_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saturation, "lacks_vnni", lambda: False)
    with pytest.raises(UsageError, match="x86 without VNNI"):
        saturation.run(argparse.Namespace())
