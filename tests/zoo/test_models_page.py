"""The page of models is true: names, inputs, counts; and every recipe of the project is a recipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from gracile.graph import cost
from gracile.zoo import MODELS, input_shape, load_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "models.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def test_every_model_is_on_the_page() -> None:
    assert {name for row in ROWS[1:] for name in re.findall(r"`(\w+)`", row[0])} == set(MODELS)


@pytest.mark.parametrize("row", [row for row in ROWS[1:] if "110" not in row[0]], ids=lambda row: row[0])
def test_inputs_and_costs(row: list[str]) -> None:
    names = re.findall(r"`(\w+)`", row[0])
    counts = [int(text.replace(",", "")) for text in row[3].split(";")]
    macs = [float(text.strip(" M").replace(",", "")) for text in row[4].split(";")]
    for name, count, millions in zip(names, counts, macs, strict=True):
        shape = input_shape(f"gracile:{name}")
        assert shape is not None
        assert "x".join(map(str, shape)) == row[2]
        if name == "wrn28_10":  # minutes of random numbers
            continue
        found = cost(load_model(f"gracile:{name}"), (torch.zeros(1, *shape),))
        assert found.params == count
        assert found.macs / 1e6 == pytest.approx(millions, rel=0.02)
