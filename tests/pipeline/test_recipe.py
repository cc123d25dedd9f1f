"""Recipes: what is read, what is refused, and how errors point at the line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gracile.errors import RecipeError
from gracile.pipeline import STEPS, Recipe, load_recipe, parse_recipe

GOOD = """\
name: tiny
model: {spec: "gracile:demo_net"}
data: {spec: digits}
steps:
- step: prune
  budget: {macs: 0.5}
- step: tune
  epochs: 2
- step: fold
- step: quantize
- step: export
"""


def refusal(text: str, overrides: list[str] | None = None) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides, file="r.yaml")
    assert caught.value.exit_code == 2
    return caught.value


def test_a_good_recipe_keeps_the_order_of_its_steps() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.step_names == ("prune", "tune", "fold", "quantize", "export")
    assert recipe.seed == 0


def test_a_recipe_survives_json() -> None:
    recipe = parse_recipe(GOOD)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("old", "new", "where", "do"),
    [
        ("  epochs: 2", "  epocs: 2", "r.yaml:8, steps[1].epocs", "Did you mean epochs?"),
        ("step: fold", "step: fodl", "r.yaml:9, steps[2].step", "Did you mean fold?"),
        ("{macs: 0.5}", "{mac: 0.5}", "r.yaml:6, steps[0].budget.mac", "Did you mean macs?"),
        ("name: tiny", "nam: tiny", "r.yaml:1, nam", "Did you mean name?"),
        ("{spec: digits}", "{spec: digits, optoins: {}}", "r.yaml:3, data.optoins", "Did you mean options?"),
    ],
)
def test_a_misspelt_key_is_named_with_its_line_and_a_guess(old: str, new: str, where: str, do: str) -> None:
    error = refusal(GOOD.replace(old, new))
    assert error.where == where
    assert do in error.do


@pytest.mark.parametrize(
    ("old", "new", "where", "wanted"),
    [
        ("epochs: 2", "epochs: 0", "r.yaml:8, steps[1].epochs", "greater than or equal to 1"),
        ("epochs: 2", "epochs: two", "r.yaml:8, steps[1].epochs", "valid integer"),
        (
            "{macs: 0.5}",
            "{}",
            "r.yaml:6, steps[0].budget",
            "one of macs, params, bytes, per_layer, everywhere",
        ),
        ("{macs: 0.5}", "{macs: 0.5, params: 0.5}", "r.yaml:6, steps[0].budget", "one of macs"),
        ("{macs: 0.5}", "{macs: .nan}", "r.yaml:6, steps[0].budget.macs", "finite"),
        ("- step: export", "- step: tune", "r.yaml:11, steps[4]", "`tune` before `quantize`"),
        ("- step: tune", "- step: train", "r.yaml:7, steps[1]", "`train` before every other step"),
        ("- step: tune\n", "- name: tune\n", "r.yaml:7, steps[1]", "`step:` with the name of a technique"),
        ("name: tiny", "name: ../tiny", "r.yaml:1, name", "pattern"),
        ("- step: fold", "- step: fold\n  name: a/b", "r.yaml:10, steps[2].name", "pattern"),
        (
            "- step: fold",
            "- step: fold\n  name: compare",
            "r.yaml:10, steps[2].name",
            "another name than original, int8-only, compare",
        ),
        (
            "- step: fold",
            "- step: export\n- step: fold",
            "r.yaml:12, steps[5]",
            "a file of its own for each step",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_line(old: str, new: str, where: str, wanted: str) -> None:
    error = refusal(GOOD.replace(old, new))
    assert error.where == where
    assert wanted in error.wanted


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        ("", "r.yaml:1", "an empty file"),
        ("- a\n- b", "r.yaml:1", "a list"),
        ("name: x\nsteps: [", "r.yaml:2", "stream end"),
        (GOOD + "name: again\n", "r.yaml:12, name", "it on lines 1 and 12"),
        (GOOD + "description: 2024-13-45\n", "r.yaml:12", "month must be in 1..12"),
        (GOOD + "? [a, b]\n: 3\n", "r.yaml:12", "a list"),
        (GOOD + "? {a: b}\n: 3\n", "r.yaml:12", "a mapping"),
        (GOOD + "x: &a [*a]\n", "r.yaml:1", "a value that holds itself"),
        ("[" * 3000, "r.yaml:1", "very many levels"),
    ],
)
def test_text_that_is_no_recipe(text: str, where: str, found: str) -> None:
    error = refusal(text)
    assert error.where == where
    assert found in error.found


def test_several_mistakes_are_all_told() -> None:
    error = refusal(GOOD.replace("epochs: 2", "epochs: 0").replace("macs: 0.5", "macs: 2"))
    assert "steps[0].budget.macs" in error.where
    assert "steps[1].epochs" in error.do


def test_one_wrong_field_in_a_recipe_of_one_step_is_one_mistake() -> None:
    head = "name: a\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: digits}\n"
    assert refusal(head + "steps:\n- {step: tune, epochs: 0}\n").do == ""
    assert "at least 1 item" in refusal(head + "steps: []\n").wanted


def test_a_field_of_several_forms_is_named_as_it_is_written() -> None:
    error = refusal(GOOD.replace("{macs: 0.5}", "{macs: 0.5}\n  trunk: {conv1: coupledd}"))
    assert error.where == "r.yaml:7, steps[0].trunk"
    assert "Also r.yaml:7, steps[0].trunk.conv1: wanted 'coupled'" in error.do


def test_keys_below_names_of_the_user_s_own_are_guessed() -> None:
    error = refusal(GOOD.replace("- step: quantize", "- step: quantize\n  layers: {conv1: {weight: 4}}"))
    assert error.where == "r.yaml:11, steps[3].layers.conv1.weight"
    assert error.wanted == "one of the keys weights, activations"
    assert error.do == "Did you mean weights?"


def test_overrides_by_number_and_by_name_and_into_parts_that_were_not_written() -> None:
    recipe = parse_recipe(
        GOOD, ["steps.tune.epochs=5", "steps.0.criterion=l2", "measure.batches=[1, 4]", "seed=3"]
    )
    assert recipe.steps[1].model_dump()["epochs"] == 5
    assert recipe.steps[0].model_dump()["criterion"] == "l2"
    assert recipe.measure.batches == (1, 4)
    assert recipe.seed == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("steps.tun.epochs=1", "'tun'"),
        ("steps.9.epochs=1", "9"),
        ("epochs", "'epochs'"),
        ("name.x=3", "'x' below a plain value"),
        ("steps.tune.epoch=1", "'epoch'"),
        ("steps.tune.epochs=zero", "'zero'"),
        ("seed=[", "'['"),
        ("description=2024-13-45", "'2024-13-45'"),
    ],
)
def test_a_bad_override_names_itself_not_a_line_of_the_file(text: str, found: str) -> None:
    error = refusal(GOOD, [text])
    assert error.where == f"--set {text}"
    assert error.found == found


def test_files_beside_the_recipe_are_found_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build(): ...")
    (tmp_path / "w.safetensors").write_bytes(b"")
    (tmp_path / "r.yaml").write_text(
        GOOD.replace('{spec: "gracile:demo_net"}', "{spec: 'net.py:build', weights: w.safetensors}")
    )
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.model.spec == f"{tmp_path / 'net.py'}:build"
    assert recipe.model.weights == str(tmp_path / "w.safetensors")


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "absent.yaml")


def test_the_kinds_are_named_as_in_recipes() -> None:
    for kind, step in STEPS.items():
        assert step.model_fields["step"].default == kind
        assert step.__doc__


def test_reading_a_recipe_does_not_import_torch() -> None:
    code = "import sys, gracile.pipeline as p; p.Recipe.model_json_schema(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "masking",
    ["sparsify, sparsity: 0.5", "tune, epochs: 2, gradual: {sparsity: 0.5}"],
)
@pytest.mark.parametrize(
    "step",
    ["fuse", "merge, macs: 0.5", "decompose, budget: {macs: 0.5}", "joint, budget: {macs: 0.5}"],
)
def test_steps_that_make_other_weights_come_before_masks(step: str, masking: str) -> None:
    head = "name: a\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: digits}\nsteps:\n"
    lines = [f"- {{step: {masking}}}\n", f"- {{step: {step}}}\n"]
    error = refusal(head + "".join(lines))
    first = masking.partition(",")[0]
    assert f"`{step.partition(',')[0]}` before `{first}`, which makes weights zero for good" in error.wanted
    assert error.do == "Move it up."
    assert len(parse_recipe(head + "".join(reversed(lines))).steps) == 2


def test_channels_that_go_during_a_training_leave_no_masks() -> None:
    head = "name: a\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: digits}\nsteps:\n"
    gradual = "- {step: tune, epochs: 2, gradual: {budget: {macs: 0.5}}}\n"
    assert len(parse_recipe(f"{head}{gradual}- {{step: fuse}}\n").steps) == 2


def test_aliases_repeat_but_do_not_multiply_without_end() -> None:
    head = "name: a\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: digits}\nsteps:\n"
    shared = head + "- &tune {step: tune, epochs: 1}\n"
    assert [step.epochs for step in parse_recipe(f"{shared}- *tune\n").steps] == [1, 1]  # type: ignore[union-attr]
    levels = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 40))
    with pytest.raises(RecipeError, match=r"at most 100,000 values, found more, each alias counted"):
        parse_recipe(f"{shared}x0: &x0 [1]\n{levels}")
