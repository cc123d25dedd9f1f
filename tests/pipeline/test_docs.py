"""The recipes in the guide are recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gracile.data import DATA
from gracile.pipeline import STEPS, load_recipe, parse_recipe
from gracile.zoo import MODELS

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


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_recipes(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    source, _, name = recipe.model.spec.partition(":")
    assert source != "gracile" or name in MODELS
    assert recipe.data.spec in DATA or recipe.data.spec.startswith("images:")
    command = "train" if recipe.only_trains else "compress"
    assert f"gracile {command} recipes/{path.name}" in path.read_text(encoding="utf-8")
