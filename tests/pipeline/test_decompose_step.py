"""A recipe that factors layers: saved, restored, timed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gracile import decompose, graph, pipeline
from gracile.errors import BadArgument
from gracile.pipeline import latency, parse_recipe
from gracile.pipeline.state import Bench, State
from gracile.pipeline.steps import DecomposeStep
from gracile.records import MaskPlan

RECIPE = """
name: factored
model: {spec: "gracile:demo_net", options: {width: 16}}
data: {spec: digits}
steps:
- step: decompose
  budget: {macs: 0.6}
  pays: macs
  importance: IMPORTANCE
  calibration: CALIBRATION
- {step: tune, epochs: 1, batch_size: 32, train_images: 64, bf16: false}
- {step: fold}
- {step: quantize, calibration: 16}
- {step: export}
measure: {runtimes: [ort], batches: [1], runs: 6, threads: 1, test_images: 20}
"""

SLOWER = decompose.LayerTime(dense=1.0, factored=2.0, faster=False)


@pytest.mark.parametrize(("importance", "calibration"), [("sensitivity", 32), ("equal", 0)])
def test_the_factored_model_goes_on_after_an_interruption(
    importance: str, calibration: int, tmp_path: Path, watched: Any
) -> None:
    text = RECIPE.replace("IMPORTANCE", importance).replace("CALIBRATION", str(calibration))
    recipe = parse_recipe(text)
    watched.stop_at = "quantize"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path / "run", progress=False)
    watched.stop_at = ""
    run = pipeline.run(recipe, tmp_path / "run", resume=True, progress=False)
    assert watched.done["decompose"] == 1
    step = next(step for step in run.steps if step.name == "decompose")
    assert step.detail["layers"]
    assert (step.detail["importance"] is None) == (importance == "equal")
    assert run.after.macs <= 0.6 * run.before.macs
    assert next(proof.name for proof in run.proofs) == "layers factored"
    assert all(proof.passed for proof in run.proofs)
    assert run.plan["changes"][0]["kind"] == "decompose"
    rows = {row["name"]: row for row in run.layers}
    for one in step.detail["layers"]:
        assert one["layer"] not in rows  # its parts stand for it
        parts = [row for name, row in rows.items() if name.rpartition(".")[0] == one["layer"]]
        assert sum(row["macs_before"] for row in parts) == one["macs_before"]
        assert sum(row["macs_after"] for row in parts) == one["macs_after"]
        assert parts[-1]["width_before"] == parts[-1]["width_after"]
        assert all(row["weight_bits"] == 8 for row in parts)
    assert sum(row["macs_after"] for row in run.layers) == run.after.macs


@pytest.mark.parametrize("int8", [False, True])
def test_a_layer_is_timed_against_what_would_stand_for_it(bench: Bench, int8: bool) -> None:
    """Which of the two is faster is the machine's business; that both were run is not."""
    timer = latency.layer_timer(bench, runtime="ort", batch=2, int8=int8)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    form = decompose.SVD()
    small = form.build(layer, form.factor(layer.weight, (2,)))
    found = timer("conv", layer, small, (8, 6, 6))
    assert found.dense > 0
    assert found.factored > 0
    assert list(bench.out.iterdir()) == []  # files are not left behind


def test_layers_that_do_not_get_faster_are_left_dense(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "layer_timer", lambda *args, **kw: lambda *one: SLOWER)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    step = DecomposeStep.model_validate(
        {"step": "decompose", "budget": {"energy": 0.5}, "leave": [], "calibration": 4, "importance": "equal"}
    )
    outcome = step.run(State(model=model.eval()), bench)
    assert outcome.detail["layers"] == []
    assert {skip.where for skip in outcome.skips} == {"0", "2", "4"}
    assert any("instead of 1" in skip.why for skip in outcome.skips)
    assert graph.cost(outcome.state.model, bench.inputs) == graph.cost(model, bench.inputs)


def test_a_budget_in_milliseconds_times_layers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def timer(*one: Any) -> decompose.LayerTime:
        dense, factored = (float(sum(p.numel() for p in m.parameters())) for m in one[1:3])
        return decompose.LayerTime(dense=dense, factored=factored, faster=factored < dense)

    monkeypatch.setattr(latency, "layer_timer", lambda *args, **kw: timer)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    step = DecomposeStep.model_validate(
        {"step": "decompose", "budget": {"milliseconds": 0.5}, "leave": [], "calibration": 4,
         "importance": "equal", "pays": "macs"}
    )  # fmt: skip
    assert step.budget.value() == decompose.Milliseconds(fraction_kept=0.5)
    layers = step.run(State(model=model.eval()), bench).detail["layers"]
    assert layers
    assert all(one["milliseconds"][1] < one["milliseconds"][0] for one in layers)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"budget": {}}, "one of macs, params, bytes, energy"),
        ({"budget": {"macs": 0.5, "params": 0.5}}, "one of macs, params, bytes, energy, milliseconds"),
        ({"budget": {"macs": 0.5, "weight_bits": 8}}, "belongs to a budget in bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DecomposeStep.model_validate({"step": "decompose", **fields})


def test_fields_that_do_not_fit_together(bench: Bench) -> None:
    step = DecomposeStep.model_validate({"step": "decompose", "budget": {"bytes": 900}, "calibration": 0})
    with pytest.raises(BadArgument, match="importance"):
        step.check()
    assert step.budget.value() == decompose.Bytes(at_most=900)
    masked = State(model=nn.Linear(2, 2), masks=MaskPlan(masks=()))
    with pytest.raises(BadArgument, match="before sparsify"):
        step.run(masked, bench)
