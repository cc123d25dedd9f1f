"""Recipes that prune and factor under one budget, or merge: saved, restored, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gracile import decompose, graph, pipeline
from gracile.errors import BadArgument
from gracile.pipeline import latency, parse_recipe
from gracile.pipeline.state import Bench, State
from gracile.pipeline.steps import JointStep, MergeStep
from gracile.records import Bytes, Macs, MaskPlan, Params

RECIPE = """
name: together
model: {spec: "gracile:demo_net", options: {width: 16}}
data: {spec: digits}
steps:
- {step: merge, macs: 0.95, calibration: 32}
- step: joint
  budget: {macs: 0.6}
  forms: [svd]
  shares: [0.5]
  calibration: 64
- {step: fold}
measure: {runtimes: [torch], batches: [1], runs: 6, threads: 1, test_images: 20, reference_int8: false}
"""


def test_the_run_goes_on_after_an_interruption(tmp_path: Path, watched: Any) -> None:
    recipe = parse_recipe(RECIPE)
    watched.stop_at = "fold"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path / "run", progress=False)
    watched.stop_at = ""
    run = pipeline.run(recipe, tmp_path / "run", resume=True, progress=False)
    assert watched.done["joint"] == watched.done["merge"] == 1
    assert [change["kind"] for change in run.plan["changes"]] == ["merge", "prune", "decompose", "fold"]
    steps = {step.name: step for step in run.steps}
    assert steps["merge"].detail["clusters"]
    assert steps["joint"].detail["by_pruning"] == 0.5
    assert len(steps["joint"].detail["trials"]) == 1
    assert run.after.macs <= 0.6 * 0.95 * run.before.macs
    assert {proof.name for proof in run.proofs} >= {"channels merged", "layers factored", "zero then remove"}
    assert all(proof.passed for proof in run.proofs)


def test_pruning_alone_leaves_no_decomposition_behind(bench: Bench) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    step = JointStep.model_validate(
        {"step": "joint", "budget": {"params": 0.8}, "shares": [1.0], "calibration": 16}
    )
    outcome = step.run(State(model=model.eval()), bench)
    assert [change.kind for change in outcome.state.changes] == ["prune"]
    assert outcome.summary.startswith("100% of the saving by pruning, 0 layers factored")
    assert (
        graph.cost(outcome.state.model, bench.inputs).params <= 0.8 * graph.cost(model, bench.inputs).params
    )


def test_layers_that_do_not_get_faster_are_left_dense(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        latency,
        "layer_timer",
        lambda *args, **kw: lambda *one: decompose.LayerTime(dense=1.0, factored=2.0, faster=False),
    )
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    step = JointStep.model_validate(
        {"step": "joint", "budget": {"macs": 0.8}, "shares": [1.0, 0.5], "calibration": 16,
         "forms": ["svd"], "pays": "milliseconds"}
    )  # fmt: skip
    plan = step.plan(State(model=model.eval()), bench, bench.calibration(16))
    assert plan.by_pruning == 1.0
    assert plan.decompose.layers == ()
    assert plan.trials[1].divergence is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"budget": {}}, "one of macs, params, bytes"),
        ({"budget": {"macs": 0.5, "params": 0.5}}, "one of macs, params, bytes"),
        ({"budget": {"macs": 0.5, "weight_bits": 8}}, "belongs to a budget in bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JointStep.model_validate({"step": "joint", **fields})


def test_fields_that_do_not_fit_together(bench: Bench) -> None:
    masked = State(model=nn.Linear(2, 2), masks=MaskPlan(masks=()))
    for fields, words in (
        ({"forms": []}, "forms"),
        ({"shares": []}, "shares"),
        ({"shares": [2.0]}, "shares"),
    ):
        with pytest.raises(BadArgument, match=words):
            JointStep.model_validate({"step": "joint", "budget": {"macs": 0.5}, **fields}).check()
    step = JointStep.model_validate({"step": "joint", "budget": {"bytes": 900, "weight_bits": 8}})
    assert step.budget.cost() == Bytes(at_most=900, weight_bits=8)
    with pytest.raises(BadArgument, match="before sparsify"):
        step.run(masked, bench)
    with pytest.raises(BadArgument, match="before sparsify"):
        MergeStep(macs=0.5).run(masked, bench)
    with pytest.raises(ValueError, match="one of macs and params"):
        MergeStep.model_validate({"step": "merge", "macs": 0.5, "params": 0.5})
    assert MergeStep(macs=0.5).share() == Macs(fraction_kept=0.5)
    assert MergeStep(params=0.5).share() == Params(fraction_kept=0.5)
    assert MergeStep().share() is None


def test_equal_channels_merge_without_data(bench: Bench) -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = model[0].weight[1], model[0].bias[1]
    wanted = model.eval()(bench.images)
    outcome = MergeStep(leave=()).run(State(model=model), bench)
    assert outcome.detail["clusters"] == {"0": [[1, 3]]}
    assert outcome.summary.startswith("2 channels in 1 clusters")
    torch.testing.assert_close(outcome.state.model(bench.images), wanted, rtol=1e-4, atol=1e-5)
    again = MergeStep.restore(
        nn.Sequential(
            *[type(m)(*a) for m, a in zip(model, ((1, 8, 3), (), (8, 8, 3), (), (128, 10)), strict=True)]
        ),
        outcome.state.changes[0].plan,
    )
    again.load_state_dict(outcome.state.model.state_dict())
