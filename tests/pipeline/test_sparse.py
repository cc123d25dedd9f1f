"""Masks in a recipe: they hold from the step that made them to the deployed file, interrupted or not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from gracile import data, pipeline
from gracile.errors import RecipeError, UsageError
from gracile.pipeline import Recipe, checkpoint, parse_recipe
from gracile.pipeline.steps import PruneStep, SparsifyStep, TuneStep
from gracile.pipeline.steps.gradual import GradualPart
from gracile.prune import GRANULARITIES, Block, Cubic, Geometric, NofM, Pace, Rounds
from gracile.records import Run, read_run
from gracile.zoo import load_model

HEAD = """
name: sparse
model: {spec: "FOLDER/net.py:build"}
data: {spec: digits}
measure: {runtimes: [torch, ort], batches: [1], runs: 6, threads: 1, test_images: 50,
          after_each_step: false, reference_int8: false}
steps:
- {step: train, epochs: 1, lr: 0.1, batch_size: 32, train_images: 128, bf16: false}
"""
MASKED = """
- {step: sparsify, sparsity: 0.5}
- {step: prune, budget: {per_layer: 0.25}, calibration: 64}
- {step: tune, epochs: 2, batch_size: 32, train_images: 128, bf16: false, ema_decay: 0.5,
   gradual: {sparsity: 0.75, end: 1, every: 0.5, scope: global}}
- {step: fold}
- {step: quantize, calibration: 64}
- {step: export}
"""
NARROWED = """
- {step: tune, epochs: 2, batch_size: 32, train_images: 128, bf16: false,
   gradual: {budget: {macs: 0.5}, end: 1, every: 0.5, schedule: linear}}
- {step: export}
"""


def recipe(tiny: Recipe, steps: str) -> Recipe:
    folder = tiny.model.spec.rpartition("/")[0]
    return parse_recipe((HEAD + steps.lstrip()).replace("FOLDER", folder))


def restored(plan: Recipe, out: Path, stage: str) -> Any:
    (folder,) = (out / "checkpoints").glob(f"*-{stage}")
    found = checkpoint.load(out, folder.name)
    assert found is not None
    image = torch.zeros(1, 1, 8, 8)
    return checkpoint.restore(found, out, lambda: load_model(plan.model.spec), (image,))


@pytest.fixture(scope="module")
def masked(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Run]:
    plan, out = recipe(tiny, MASKED), tmp_path_factory.mktemp("sparse") / "run"
    return plan, out, pipeline.run(plan, out, progress=False)


def test_zeros_hold_through_tuning_folding_and_quantization(masked: tuple[Recipe, Path, Run]) -> None:
    plan, out, run = masked
    for stage in ("sparsify", "prune", "tune", "fold", "quantize"):
        state = restored(plan, out, stage)
        assert state.masks is not None
        held = dict(state.model.named_parameters())
        for mask in state.masks.masks:
            assert (held[mask.param].detach().numpy()[~mask.keep] == 0).all(), (stage, mask.param)
    assert restored(plan, out, "sparsify").masks.found_sparsity == pytest.approx(0.5, abs=0.01)
    state = restored(plan, out, "quantize")
    assert state.masks.found_sparsity == pytest.approx(0.75, abs=0.01)
    integers = [m.integers for m in state.quantized.network.weights.children()]
    shapes = {tuple(i.shape): i for i in integers}
    for mask in state.masks.masks:
        assert (shapes[mask.shape].numpy()[~mask.keep] == 0).all()
    stored = [numpy_helper.to_array(t) for t in onnx.load(out / "model.onnx").graph.initializer]
    files = {a.shape: a for a in stored if a.dtype == np.int8}
    for mask in state.masks.masks:
        assert (files[mask.shape][~mask.keep] == 0).all()
    assert set(run.plan["zeros"]) == {mask.param for mask in state.masks.masks}


def test_the_curve_of_sparsity_is_recorded(masked: tuple[Recipe, Path, Run]) -> None:
    _, out, run = masked
    curve = next(c for c in run.curves if c["step"] == "tune")["sparsity"]
    assert [point["epoch"] for point in curve] == [0, pytest.approx(2 / 3, abs=0.2), 1]
    assert curve[-1]["sparsity"] == pytest.approx(0.75, abs=0.01)
    assert set(curve[-1]["layers"]) == set(run.plan["zeros"])
    assert read_run(out) == run


def test_an_interrupted_gradual_training_goes_on(
    masked: tuple[Recipe, Path, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gracile.pipeline.steps import training

    plan, finished, whole = masked
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for folder in (out / "checkpoints").iterdir():
        if folder.name.partition("-")[2] not in ("train", "original", "sparsify", "prune"):
            shutil.rmtree(folder)
    tick = training.Ticker.on_step_end

    def stop(self: Any, *arguments: Any, step: int, epoch: int) -> None:
        if epoch == 2 and self.epochs == 2:
            raise KeyboardInterrupt
        tick(self, *arguments, step=step, epoch=epoch)

    monkeypatch.setattr(training.Ticker, "on_step_end", stop)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(plan, out, resume=True, progress=False)
    monkeypatch.setattr(training.Ticker, "on_step_end", tick)
    again = pipeline.run(plan, out, resume=True, progress=False)
    tuned = next(step for step in again.steps if step.name == "tune")
    assert tuned.detail["resumed_after"] == 1
    assert again.curves[-1]["sparsity"] == whole.curves[-1]["sparsity"]
    assert again.after.accuracy == whole.after.accuracy
    assert [a.sha256 for a in again.artifacts] == [a.sha256 for a in whole.artifacts]


def test_channels_go_during_tuning_and_come_back_narrow(tiny: Recipe, tmp_path: Path) -> None:
    plan = recipe(tiny, NARROWED)
    run = pipeline.run(plan, tmp_path / "run", progress=False)
    assert run.after.macs <= 0.5 * run.before.macs
    state = restored(plan, tmp_path / "run", "tune")
    assert {change.kind for change in state.changes} == {"prune"}
    assert state.model(data.load_data("digits").calibration(2)).shape == (2, 10)
    assert run.curves[-1]["sparsity"][-1]["sparsity"] == pytest.approx(
        1 - run.after.params / run.before.params
    )


def test_fields_become_the_library_s_objects() -> None:
    assert SparsifyStep(granularity="block", block=(2, 8)).kind() == Block(rows=2, columns=8)
    assert SparsifyStep(granularity="n:m", n_of_m=(1, 8)).kind() == NofM(n=1, m=8)
    for name, kind in GRANULARITIES.items():
        assert SparsifyStep(granularity=name).kind() == kind  # type: ignore[arg-type]
    part = GradualPart(sparsity=0.8, begin=1, end=3, every=0.5, schedule="geometric", rounds=4)
    assert part.pace(epochs=5, steps=10) == Pace(begin=10, end=30, every=5)
    assert part.growth() == Rounds(n=4, shape=Geometric(sparsity=0.8))
    short = GradualPart(sparsity=0.8)
    assert (short.pace(epochs=4, steps=10), short.growth()) == (Pace(end=30, every=2), Cubic())


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("{step: tune, gradual: {schedule: cubic}}", "sparsity"),
        ("{step: tune, gradual: {sparsity: 0.5, budget: {macs: 0.5}}}", "either budget"),
        ("{step: tune, gradual: {budget: {macs: 0.5}, criterion: gradient}}", "random, l1 or l2"),
        ("{step: tune, gradual: {sparsity: 0.5, begin: 2, end: 1}}", "end not before begin"),
        ("{step: sparsify, granularity: row}", "element"),
    ],
)
def test_what_a_recipe_may_not_say(tiny: Recipe, step: str, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        recipe(tiny, f"- {step}\n")


@pytest.mark.parametrize(
    ("step", "where"),
    [
        ("{step: sparsify, granularity: 'n:m', sparsity: 0.9}", "sparsity"),
        ("{step: sparsify, granularity: 'n:m', scope: global}", "scope"),
        ("{step: tune, epochs: 2, gradual: {sparsity: 0.5, end: 2}}", "gradual.end"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    tiny: Recipe, step: str, where: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        pipeline.run(recipe(tiny, f"- {step}\n"), tmp_path / "run", progress=False)
    assert caught.value.where == where
    assert not (tmp_path / "run/checkpoints").exists()


def test_baselines_start_from_new_weights(tiny: Recipe, masked: tuple[Recipe, Path, Run]) -> None:
    from types import SimpleNamespace

    from gracile.pipeline.state import State

    _, out, _ = masked
    model = restored(masked[0], out, "train").model
    bundle = data.load_data("digits")
    bench: Any = SimpleNamespace(
        inputs=(bundle.calibration(1),), seed=3, calibration=bundle.calibration, bundle=bundle,
        labelled=lambda count: bundle.labelled(count, 3),
        tick=lambda *_: None,
    )  # fmt: skip
    kept = PruneStep.model_validate({"budget": {"macs": 0.5}, "reset": False}).run(State(model=model), bench)
    new = PruneStep.model_validate({"budget": {"macs": 0.5}, "reset": True}).run(State(model=model), bench)
    assert repr(kept.state.model) == repr(new.state.model) != repr(model)
    assert not torch.equal(kept.state.model[0].weight, new.state.model[0].weight)
    sparse = SparsifyStep(sparsity=0.5, reset=True).run(State(model=model), bench).state
    assert sparse.masks is not None
    mask = torch.from_numpy(sparse.masks.masks[0].keep)
    weight = sparse.model.get_parameter(sparse.masks.masks[0].param)
    assert torch.equal(weight != 0, mask)
    assert not torch.equal(weight[mask], model.get_parameter(sparse.masks.masks[0].param)[mask])


def test_a_training_step_knows_its_gradual_part() -> None:
    assert TuneStep(gradual=GradualPart(sparsity=0.5)).gradual is not None
    assert TuneStep().gradual is None
