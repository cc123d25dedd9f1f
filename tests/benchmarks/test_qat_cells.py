"""Cells of quantization-aware training: what their names mean, what makes them, what has a bar."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import qat, qat_side_by_side
from gracile.errors import UsageError


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    qat.arguments(parser)
    return parser.parse_args([*words, "--keep", str(Path("none"))])


def entry(name: str, **more: Any) -> dict[str, Any]:
    whole = {
        "name": name, "network": name.split(":")[0], "n": 1000, "float": 92.5, "accuracy": 92.0,
        "difference": -0.5, "low": -1.5, "high": 0.5, "zeros_percent": 75.0, "bytes": 10, "float_bytes": 260,
    }  # fmt: skip
    return whole | more


@pytest.mark.parametrize(
    ("cell", "bits", "technique"),
    [
        ("resnet20:W4A2", (4, 2), "lsq"),
        ("resnet56:TA8", (2, 8), "twn"),
        ("resnet20:W1A8", (1, 8), "dorefa"),
    ],
)
def test_a_cell_names_bits_and_technique(cell: str, bits: tuple[int, int], technique: str) -> None:
    scheme = qat.scheme_of(cell, parsed())
    assert (scheme.weight_bits, scheme.activation_bits) == bits
    assert scheme.weights == technique
    assert qat.scheme_of(cell, parsed("--weights", "minmax")).weights == "minmax"


@pytest.mark.parametrize("cell", ["resnet20:W9A8", "vgg:W4A4", "resnet20:TW4"])
def test_what_is_no_cell_is_refused(cell: str) -> None:
    with pytest.raises(UsageError):
        qat.parted(cell)


def test_all_that_changes_a_cell_is_in_its_key() -> None:
    """Else a kept cell of other settings would be taken for this one."""
    ways = [(), ("--lr", "0.1"), ("--sparsity", "0.5"), ("--compile",), ("--weights", "twn"), ("--seed", "1"),
            ("--epochs", "2"), ("--distill", "0"), ("--train-images", "64"), ("--decay", "0")]  # fmt: skip
    assert len({qat.settings_of(parsed(*way)) for way in ways}) == len(ways)


def test_bars_are_for_at_most_five_epochs_of_all_images() -> None:
    cell = entry("resnet56:TA8")
    rows = qat.rows_of(cell, parsed())
    assert [(r.must, r.value) for r in rows] == [(">= 90.5", 92.0), ("", 75.0), (">= 25", 26.0)]
    assert not any(r.must for r in qat.rows_of(cell, parsed("--epochs", "6")))
    assert not any(r.must for r in qat.rows_of(cell, parsed("--train-images", "64")))
    (lost,) = qat.rows_of(entry("resnet20:W4A4"), parsed())
    assert (lost.value, lost.spread, lost.must) == (0.5, (-0.5, 1.5), "<= 0.8")


def test_beside_brevitas_a_cell_needs_both() -> None:
    ours, theirs = (
        entry("resnet20:W4A4", tool=t, accuracy=a) for t, a in (("gracile", 91.0), ("brevitas", 90.5))
    )
    (row,) = qat_side_by_side.rows_of("resnet20:W4A4", [ours, theirs])
    assert (row.value, row.ok) == (-0.5, True)
    assert qat_side_by_side.rows_of("resnet20:W4A4", [ours]) == []
    assert qat_side_by_side.rows_of("resnet20:W2A8", [ours, theirs]) == []
