"""The recipes in the guide are recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gracile.pipeline import STEPS, parse_recipe

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "recipes.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS, ids=range(len(BLOCKS)))
def test_blocks_are_recipes_or_steps_of_one(text: str) -> None:
    if text.startswith("- step"):
        steps = yaml.safe_dump(yaml.safe_load(text))
        text = f"name: x\nmodel: {{spec: 'gracile:lenet'}}\ndata: {{spec: mnist}}\nsteps:\n{steps}"
    assert parse_recipe(text).steps


def test_every_step_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(STEPS) <= set(rows)


def test_fields_named_in_the_table_exist() -> None:
    for kind, fields in re.findall(
        r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE
    ):
        if kind in STEPS:
            named = set(re.findall(r"`(\w+)`", fields)) - set(STEPS)
            assert named <= set(STEPS[kind].model_fields), kind
