"""A recipe end to end: what it leaves, how it resumes, how it stops."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import TextColumn

from gracile import data, measure, pipeline, report
from gracile.errors import NonFiniteError, StorageError, UsageError, WeightsError
from gracile.pipeline import Recipe, load_recipe, parse_recipe, runner
from gracile.pipeline.fingerprint import start_key
from gracile.pipeline.progress import Live
from gracile.pipeline.steps import ExportStep
from gracile.records import Run, read_run, sha256

STAGES = ["train", "original", "int8-only", "prune", "tune", "fold", "quantize", "export", "compare"]


@pytest.fixture(scope="module")
def finished(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, pipeline.run(tiny, out, progress=False)


def test_the_record_holds_everything(finished: tuple[Path, Run]) -> None:
    out, run = finished
    assert read_run(out) == run
    assert [step.name for step in run.steps] == STAGES
    assert all(step.seconds > 0 for step in run.steps)
    assert run.before.n == run.after.n == 100
    assert run.after.macs <= 0.6 * run.before.macs
    assert run.after.params < run.before.params
    assert run.versions["torch"]
    assert run.hardware["cores"] >= 1
    assert [change["kind"] for change in run.plan["changes"]] == ["prune", "fold"]
    assert len(run.plan["quantize"]["weights"]) == 4
    assert run.proofs
    assert all(proof.passed for proof in run.proofs)
    assert {curve["step"] for curve in run.curves} == {"train", "tune"}
    assert run.verdict


def test_artifacts_are_there_with_their_checksums(finished: tuple[Path, Run]) -> None:
    out, run = finished
    assert {artifact.path for artifact in run.artifacts} == {
        "model.onnx",
        "reference/original.onnx",
        "reference/int8-only.onnx",
    }
    for artifact in run.artifacts:
        assert sha256(out / artifact.path) == artifact.sha256
    assert run.after.size_bytes == (out / "model.onnx").stat().st_size
    assert run.before.size_bytes == (out / "reference/original.onnx").stat().st_size


def test_accuracy_after_is_that_of_the_deployed_file(finished: tuple[Path, Run]) -> None:
    out, run = finished
    test = data.load_data("digits").test.subset(range(100))
    predicted, labels = measure.predictions(measure.ort_runner(out / "model.onnx", 1), test, 50)
    assert run.after.accuracy == pytest.approx(100 * float(np.mean(predicted == labels)))


def test_speeds_and_ratios_cover_models_runtimes_and_batches(finished: tuple[Path, Run]) -> None:
    _, run = finished
    assert {(speed.model, speed.runtime) for speed in run.speeds} == {
        ("original", "torch"),
        ("original", "ort"),
        ("int8 only", "ort"),
        ("compressed", "ort"),
    }
    assert {speed.batch for speed in run.speeds} == {1, 4}
    assert {(ratio.candidate, ratio.reference) for ratio in run.ratios} == {
        ("compressed in ort", f"{reference} in {runtime}")
        for reference, runtime in (("original", "torch"), ("original", "ort"), ("int8 only", "ort"))
    }
    assert run.before.runtime == "torch"
    assert run.after.runtime == "ort"
    assert run.after.batch == 4


def test_layers_tell_widths_and_bits(finished: tuple[Path, Run]) -> None:
    _, run = finished
    rows = {layer["name"]: layer for layer in run.layers}
    assert rows["0"]["width_before"] == rows["0"]["width_after"] == 8
    assert rows["9"]["width_before"] == rows["9"]["width_after"] == 10
    assert rows["3"]["width_after"] < rows["3"]["width_before"] == 12
    assert all(layer["weight_bits"] == layer["activation_bits"] == 8 for layer in run.layers)


def test_a_finished_run_resumed_repeats_nothing(
    finished: tuple[Path, Run], tiny: Recipe, watched: Any
) -> None:
    out, run = finished
    again = pipeline.run(tiny, out, resume=True, progress=False)
    assert not watched.done
    assert all(step.resumed for step in again.steps)
    assert again.after == run.after


def test_ctrl_c_at_every_stage_then_resume(
    finished: tuple[Path, Run], tiny: Recipe, watched: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for stage in STAGES:
        watched.stop_at = stage
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(tiny, out, resume=stage != STAGES[0], progress=False)
        assert not (out / "run.json").exists()
    watched.stop_at = ""
    run = pipeline.run(tiny, out, resume=True, progress=False)
    assert dict(watched.done) == dict.fromkeys(STAGES, 1)
    assert [step.name for step in run.steps if not step.resumed] == ["compare"]
    assert sha256(out / "model.onnx") == sha256(finished[0] / "model.onnx")  # as if nothing had happened


def test_a_changed_recipe_starts_again_at_the_change(
    finished: tuple[Path, Run], tiny: Recipe, watched: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    last = tiny.steps[-1].model_copy(update={"file": "new.onnx"})
    changed = tiny.model_copy(update={"steps": (*tiny.steps[:-1], last)})
    run = pipeline.run(changed, out, resume=True, progress=False)
    assert dict(watched.done) == {"export": 1, "compare": 1}
    assert run.notes == (
        "the recipe, data or weights changed since the last run: going on from export, which is done again.",
    )
    assert run.plan["deployed"] == "new.onnx"


def test_a_damaged_file_is_made_again(
    finished: tuple[Path, Run], tiny: Recipe, watched: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (out / "model.onnx").write_bytes(b"damaged")
    assert pipeline.run(tiny, out, resume=True, progress=False).after == finished[1].after
    assert dict(watched.done) == {"export": 1}


def test_accuracies_after_steps_follow_the_number_of_test_images(
    finished: tuple[Path, Run], tiny: Recipe, watched: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    fewer = tiny.measure.model_copy(update={"test_images": 10})
    run = pipeline.run(tiny.model_copy(update={"measure": fewer}), out, resume=True, progress=False)
    assert set(watched.done) == {"original", "compare"}
    assert run.after.n == 10
    measured = [step.accuracy for step in run.steps if step.accuracy is not None]
    assert measured
    assert all(accuracy % 10 == pytest.approx(0) for accuracy in measured)


def test_training_resumes_within_a_step(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gracile.pipeline.steps import training

    tick = training.Ticker.on_step_end

    def stop(self: Any, *arguments: Any, step: int, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        tick(self, *arguments, step=step, epoch=epoch)

    monkeypatch.setattr(training.Ticker, "on_step_end", stop)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tiny, out, progress=False)
    assert list((out / "checkpoints/00-train").glob("partial-*"))
    monkeypatch.setattr(training.Ticker, "on_step_end", tick)
    short = tiny.model_copy(update={"steps": tiny.steps[:2]})
    run = pipeline.run(short, out, resume=True, progress=False)
    assert run.steps[0].name == "train"
    assert run.steps[0].detail["resumed_after"] == 1
    assert len(run.steps[0].detail["epochs"]) == 2
    assert not list((out / "checkpoints/00-train").glob("partial-*"))


def test_no_space_left_leaves_nothing_half_written(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, replace = tmp_path / "run", os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("weights.safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        pipeline.run(tiny, out, progress=False)
    assert caught.value.exit_code == 1
    assert not (out / "checkpoints/00-train/stage.json").exists()
    assert [path.name for path in out.rglob(".*")] == []
    monkeypatch.setattr(os, "replace", replace)
    short = tiny.model_copy(update={"steps": tiny.steps[:1]})
    assert pipeline.run(short, out, resume=True, progress=False).after.accuracy > 0


@pytest.mark.parametrize(
    ("content", "resume", "do"),
    [
        ("notes.txt", False, "does not hold a run"),
        ("notes.txt", True, "does not hold a run"),
        ("recipe.json", False, "--resume"),
    ],
)
def test_a_folder_that_is_not_empty(
    tiny: Recipe, tmp_path: Path, content: str, resume: bool, do: str
) -> None:
    (tmp_path / content).write_text("{}")
    with pytest.raises(UsageError) as caught:
        pipeline.run(tiny, tmp_path, resume=resume, progress=False)
    assert do in caught.value.do
    assert (tmp_path / content).read_text() == "{}"


def test_out_is_a_file(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a file"):
        pipeline.run(tiny, tmp_path / "file", progress=False)


def test_weights_are_looked_for_under_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.safetensors").write_bytes(b"")
    assert runner.find_weights("weights/a.safetensors", tmp_path) == tmp_path / "weights/a.safetensors"
    with pytest.raises(WeightsError, match="none at"):
        runner.find_weights("weights/b.safetensors", tmp_path)
    assert runner.find_weights(None, tmp_path) is None


TWICE = """
name: twice
model: {spec: "FOLDER/net.py:build"}
data: {spec: digits}
steps:
- {step: export, name: before}
- {step: quantize, calibration: 5000, rounding: nearest}
measure: {runtimes: [ort], batches: [1], runs: 6, threads: 1, test_images: 20, after_each_step: false}
"""


@pytest.fixture(scope="module")
def exported_early(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Run]:
    plan = parse_recipe(TWICE.replace("FOLDER", tiny.model.spec.rpartition("/")[0]))
    out = tmp_path_factory.mktemp("early") / "run"
    return plan, out, pipeline.run(plan, out, progress=False)


def test_a_file_exported_before_the_last_change_is_not_the_one_to_deploy(
    exported_early: tuple[Recipe, Path, Run],
) -> None:
    _, out, run = exported_early
    assert run.plan["deployed"] == "model-2.onnx"
    assert {artifact.path: artifact.name for artifact in run.artifacts} == {
        "reference/original.onnx": "original, float",
        "model.onnx": "the model at before",
        "model-2.onnx": "to deploy",
    }
    assert all(sha256(out / artifact.path) == artifact.sha256 for artifact in run.artifacts)
    assert run.after.size_bytes == (out / "model-2.onnx").stat().st_size < run.before.size_bytes
    assert run.kernels == run.parity == ()  # those listed are of the float file


def test_kernels_are_those_of_the_deployed_file(
    exported_early: tuple[Recipe, Path, Run], watched: Any, tmp_path: Path
) -> None:
    plan, finished, _ = exported_early
    shutil.copytree(finished, tmp_path / "run")
    last = ExportStep(file="last.onnx", target="openvino-cpu")
    plan = plan.model_copy(update={"steps": (*plan.steps, last)})
    run = pipeline.run(plan, tmp_path / "run", resume=True, progress=False)
    assert set(watched.done) == {"export", "compare"}
    assert run.plan["deployed"] == "last.onnx"
    assert [row["bits"] for row in run.kernels if row["layer"] in "0369"] == [8] * 4
    assert run.parity
    assert "All 4 quantized layers ran in integers in OpenVINO on a processor." in run.verdict
    assert "the kernel that OpenVINO on a processor ran" in report.html(run)


def test_what_a_stage_told_is_told_again_when_it_is_not_repeated(
    exported_early: tuple[Recipe, Path, Run], watched: Any
) -> None:
    plan, out, run = exported_early
    told = "Calibrated with all 1352 training images; the recipe asks for 5000."
    assert told in run.notes
    assert pipeline.run(plan, out, resume=True, progress=False).notes == run.notes
    assert not watched.done


def test_keys_follow_the_files_that_data_are_read_from(tmp_path: Path) -> None:
    text = "name: x\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: 'SPEC'}\nsteps: [{step: fold}]"
    folder = parse_recipe(text.replace("SPEC", "images:photos"))
    file = tmp_path / "photos/cats/1.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    first = start_key(folder, None, tmp_path)
    assert start_key(folder, None, tmp_path) == first
    file.write_bytes(b"22")
    assert start_key(folder, None, tmp_path) != first
    stored = parse_recipe(text.replace("SPEC", "cifar10"))
    assert start_key(stored, None, tmp_path) != start_key(stored, None, tmp_path / "photos")
    packaged = parse_recipe(text.replace("SPEC", "digits"))
    assert start_key(packaged, None, tmp_path) == start_key(packaged, None, None)


def test_keys_follow_files_of_the_user_and_what_they_import(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "name: x\nmodel: {spec: '~/net.py:build'}\ndata: {spec: digits}\nsteps: [{step: fold}]"
    (tmp_path / "net.py").write_text("import layers")
    (tmp_path / "layers.py").write_text("")
    keys = [start_key(parse_recipe(text), None, None)]
    for file in ("net.py", "layers.py"):
        with (tmp_path / file).open("a") as opened:
            opened.write("\nwidth = 3")
        keys.append(start_key(parse_recipe(text), None, None))
    assert len(set(keys)) == 3


NAN = """
import torch
from torch import nn

class Poisoned(nn.Module):
    input_shape = (1, 8, 8)
    def __init__(self):
        super().__init__()
        self.flat = nn.Flatten()
        self.broken = Logarithm()
        self.linear = nn.Linear(64, 10)
    def forward(self, x):
        return self.linear(self.broken(self.flat(x)))

class Logarithm(nn.Module):
    def forward(self, x):
        return torch.log(x - 1000)

def build():
    return Poisoned()
"""


def test_nan_activations_name_the_module(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NAN)
    model = f"model: {{spec: '{tmp_path}/net.py:build'}}"
    text = f"name: x\n{model}\ndata: {{spec: digits}}\nsteps: [{{step: export}}]"
    with pytest.raises(NonFiniteError) as caught:
        pipeline.run(parse_recipe(text), tmp_path / "run", progress=False)
    assert caught.value.where == "broken"
    assert caught.value.exit_code == 1


def test_threads_are_given_back(tiny: Recipe, watched: Any, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    watched.stop_at, watched.stop = "train", RuntimeError("seen")
    with pytest.raises(RuntimeError, match="seen"):
        pipeline.run(tiny.model_copy(update={"threads": before + 1}), tmp_path / "run", progress=False)
    assert torch.get_num_threads() == before


def test_recipe_json_is_what_was_asked(finished: tuple[Path, Run], tiny: Recipe) -> None:
    assert load_recipe(finished[0] / "recipe.json") == tiny


def test_the_lines_of_stages_show_names_as_they_are() -> None:
    file = io.StringIO()
    live = Live(Console(file=file, width=120))
    with live:
        live.begin("net[v2]", 0, 1)
        live.tick("timing layers[0]", 1, 2)
        live.end("net[v2]", "widths [8, 16]", 1.0, False)
    assert "net[v2]  widths [8, 16]" in file.getvalue()
    columns = [column for column in live.progress.columns if isinstance(column, TextColumn)]
    live.progress.update(live.stage, visible=True)
    (task,) = (task for task in live.progress.tasks if task.id == live.stage)
    assert [column.render(task).plain for column in columns] == ["net[v2]", "timing layers[0]"]
