"""Branches that go, widths chosen by measured time, and a teacher, in one recipe that is interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gracile import pipeline, prune, report, zoo
from gracile.pipeline import Recipe, latency, parse_recipe
from gracile.pipeline.state import Bench, State
from gracile.pipeline.steps import PruneDepthStep, SparsifyStep
from gracile.records import Branch

RECIPE = """
name: short
model: {spec: "gracile:demo_net", options: {width: 16}}
data: {spec: digits}
steps:
- {step: train, epochs: 1, lr: 0.1, batch_size: 32, train_images: 256, bf16: false}
- {step: prune_depth, branches: 1, calibration: 32, cost: milliseconds, measure_batch: 4}
- step: prune
  criterion: reconstruction
  budget: {macs: 0.7, milliseconds: 1.0}
  calibration: 32
  measure_batch: 4
- {step: tune, epochs: 1, batch_size: 32, train_images: 128, bf16: false, distill: 0.5, temperature: 2}
- {step: fold}
- {step: quantize, calibration: 32}
- {step: export}
measure: {runtimes: [ort], batches: [4], runs: 6, threads: 1, test_images: 50}
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return parse_recipe(RECIPE)


def test_the_run_goes_on_after_an_interruption_and_holds_all(
    recipe: Recipe, tmp_path: Path, watched: Any
) -> None:
    watched.stop_at = "fold"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path / "run", progress=False)
    watched.stop_at = ""
    run = pipeline.run(recipe, tmp_path / "run", resume=True, progress=False)
    assert watched.done["prune_depth"] == watched.done["tune"] == 1
    assert [change["kind"] for change in run.plan["changes"]] == ["prune_depth", "prune", "fold"]
    steps = {step.name: step for step in run.steps}
    assert steps["prune_depth"].detail["removed"] == ["block1"]  # block2 holds a projection: it may stay
    assert next(proof.name for proof in run.proofs) == "branches removed"
    assert all(proof.passed for proof in run.proofs)
    table = steps["prune"].detail["latency"]
    assert table["runtime"] == "ort"
    assert {len(group["points"]) for group in table["groups"]} == {8}
    assert run.after.macs <= 0.7 * steps["prune"].detail.get("macs_before", run.before.macs)
    widths = {g["name"]: [p[0] for p in g["points"]] for g in table["groups"]}
    for group in run.plan["changes"][1]["plan"]["groups"]:
        assert len(group["keep"]) in widths[group["name"]]


def test_masks_of_layers_that_go_with_a_branch_go_too(bench: Bench) -> None:
    state = State(model=zoo.load_model("gracile:demo_net", options={"width": 8}).eval())
    masked = SparsifyStep(sparsity=0.5).run(state, bench).state
    outcome = PruneDepthStep(branches=1, calibration=8).run(masked, bench)
    (gone,) = outcome.detail["removed"]
    assert masked.masks is not None
    assert outcome.state.masks is not None
    before, after = ({mask.param for mask in plan.masks} for plan in (masked.masks, outcome.state.masks))
    assert after == before & set(outcome.state.model.state_dict()) != before
    assert all(name.startswith(gone) for name in before - after)
    held = dict(outcome.state.model.named_parameters())
    assert all((held[m.param].detach().numpy()[~m.keep] == 0).all() for m in outcome.state.masks.masks)


def test_a_layer_between_two_groups_counts_half_for_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3), torch.nn.Flatten(), torch.nn.Linear(32, 10),
    ).eval()  # fmt: skip
    known = {"0": 1.0, "2": 2.0, "4": 4.0, "6": 8.0, "other": 16.0}
    monkeypatch.setattr(latency, "_times", lambda models, *rest: [known] * len(models))

    def narrow(budget: prune.PerLayer) -> Any:
        return prune.plan(model, bench.inputs, budget=budget, leave=())

    table = latency.width_times(State(model=model), bench, narrow, runtime="ort", batch=4)
    found: Mapping[str, float] = {group.name: group.at(8) for group in table.groups}
    assert found == {"0": 1.0 + 1.0, "2": 1.0 + 2.0, "4": 2.0 + 8.0}
    assert table.rest == pytest.approx(16.0)
    assert table.whole == pytest.approx(31.0)
    assert [kept for kept, _ in table.groups[0].points] == list(range(1, 9))


def test_a_branch_costs_what_its_layers_take(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"block1.conv1": 1.0, "block1.conv2": 2.0, "block10.conv1": 4.0, "linear": 8.0}
    monkeypatch.setattr(latency, "_times", lambda models, *rest: [known])
    state = State(model=zoo.demo_net().eval())
    of = latency.branch_times(state, bench, runtime="ort", batch=4)
    assert of(Branch(name="block1", end="block1.bn2", rank=4, inner=("block1.conv1", "block1.conv2"))) == 3.0
    assert of(Branch(name="block1", end="block1", rank=4)) == 3.0


def test_the_other_runtime_is_said_when_one_is_absent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(latency, "find_spec", lambda name: None)
    heard = Bench(**{**vars(bench), "note": notes.append})
    assert latency.available("openvino", heard) == "ort"
    assert latency.available("ort", heard) == "ort"
    assert len(notes) == 1
    assert np.char.find(notes[0], "OpenVINO is not installed") == 0


def test_a_sensitivity_analysis_is_kept_and_drawn(tmp_path: Path) -> None:
    recipe = parse_recipe("""
name: curves
model: {spec: "gracile:demo_net", options: {width: 8}}
data: {spec: digits}
steps:
- {step: prune, criterion: sensitivity, budget: {bytes: 9000, weight_bits: 8}, calibration: 16}
- {step: export}
measure: {runtimes: [ort], batches: [1], runs: 6, threads: 1, test_images: 20}
""")
    run = pipeline.run(recipe, tmp_path, progress=False)
    table = next(step for step in run.steps if step.name == "prune").detail["sensitivity"]
    assert table["images"] == 16
    assert all(group["points"][0] == [group["units"], 0.0] for group in table["groups"])
    assert (tmp_path / "sensitivity.json").is_file()
    assert 'id="sensitivity"' in report.html(run)
