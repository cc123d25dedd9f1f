"""Recipes that only train, with and without channels removed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gracile import surgery, zoo
from gracile.errors import BadArgument, RecipeError
from gracile.pipeline import Recipe, parse_recipe, run
from gracile.pipeline.stages import stages
from gracile.pipeline.steps.less_is_more import LessIsMorePart
from gracile.prune import Absolute, Relative
from gracile.records import PrunePlan, Run, from_plain, read_run
from gracile.tune import session

from .conftest import NET

TEXT = """
name: tiny
model: {spec: "FOLDER/net.py:build"}
data: {spec: digits}
steps:
- {step: train, epochs: 3, lr: 0.05, batch_size: 32, train_images: 256, bf16: false,
   less_is_more: {ratio: 0.7, every: 1, stop: 2}}
measure: {test_images: 100}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(NET)
    return parse_recipe(TEXT.replace("FOLDER", str(folder)))


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    run(recipe, out, progress=False)
    return out, read_run(out)


def test_the_record_says_what_training_made(trained: tuple[Path, Run]) -> None:
    out, record = trained
    assert [step.name for step in record.steps] == ["original", "train", "compare"]
    assert record.plan["deployed"] == "weights.safetensors"
    assert record.after.params < record.before.params
    assert record.before.size_bytes > record.after.size_bytes == (out / "weights.safetensors").stat().st_size
    assert record.speeds == ()
    assert not (out / "model.onnx").exists()
    epochs = record.curves[0]["epochs"]
    assert [epoch["params_left"] for epoch in epochs][1:] == [
        pytest.approx(100 * record.after.params / record.before.params)
    ] * 2
    step = record.steps[1]
    assert {r["time"] for r in step.detail["reductions"]} == {1, 2}
    assert any(row["width_after"] < row["width_before"] for row in record.layers)


def test_the_plan_in_the_record_and_the_weights_make_the_network_again(
    trained: tuple[Path, Run], recipe: Recipe
) -> None:
    out, record = trained
    (change,) = record.plan["changes"]
    model = zoo.load_model(recipe.model.spec)
    surgery.apply_(model, from_plain(PrunePlan, change["plan"]))
    zoo.load_weights(model, out / "weights.safetensors")
    assert sum(p.numel() for p in model.parameters()) == record.after.params
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_an_interrupted_reduction_goes_on_to_the_same_weights(
    trained: tuple[Path, Run], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, real = [0], session.Session.run_epoch

    def stop(self: Any, advance: Any) -> Any:
        done[0] += 1
        if done[0] == 3:
            raise KeyboardInterrupt
        return real(self, advance)

    monkeypatch.setattr(session.Session, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "again", progress=False)
    run(recipe, tmp_path / "again", resume=True, progress=False)
    assert done[0] == 4
    weights = (tmp_path / "again" / "weights.safetensors").read_bytes()
    assert weights == (trained[0] / "weights.safetensors").read_bytes()


def test_a_reduction_while_tuning_counts_as_structural(recipe: Recipe) -> None:
    steps = "[{step: tune, less_is_more: {ratio: 0.2}}, {step: fold}, {step: quantize}]"
    text = f"name: x\nmodel: {{spec: '{recipe.model.spec}'}}\ndata: {{spec: digits}}\nsteps: {steps}"
    assert "int8-only" in [stage.name for stage in stages(parse_recipe(text))]


def test_settings_reach_the_library(recipe: Recipe) -> None:
    model = zoo.load_model(recipe.model.spec)
    inputs = (torch.zeros(1, 1, 8, 8),)
    part = LessIsMorePart(tau=0.5, every=3, reversed=True, phase=2)
    hook = part.hook(model, inputs, epochs=10, steps=7, seed=0)
    assert (hook.threshold, hook.every, hook.role, hook.phase, hook.stop) == (
        Absolute(tau=0.5), 3, "read", 2, 7,
    )  # fmt: skip
    by_step = LessIsMorePart(by_step=True).hook(model, inputs, epochs=10, steps=7, seed=0)
    assert (by_step.threshold, by_step.stop) == (Relative(ratio=0.1), 52)


def test_settings_that_do_not_fit_together(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ratio or tau, not both"):
        parse_recipe(TEXT.replace("ratio: 0.7", "ratio: 0.7, tau: 1"))
    step = recipe.steps[0].model_copy(update={"ema_decay": 0.9})
    averaged = recipe.model_copy(update={"steps": (step,)})
    with pytest.raises(BadArgument, match="less_is_more: wanted ema_decay to be empty"):
        run(averaged, tmp_path / "x", progress=False)
