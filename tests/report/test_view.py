"""Figures and curves of runs that only train."""

from __future__ import annotations

from dataclasses import replace

from gracile.records import Run
from gracile.report import html
from gracile.report.view import figures, only_weights, training_curves

EPOCHS = [{"epoch": e, "train_loss": 1.0, "train_accuracy": 50.0, "params_left": 100.0 / e} for e in (1, 2)]


def test_what_training_removed_is_a_curve(run: Run) -> None:
    reduced = replace(run, curves=({"step": "train", "epochs": EPOCHS},))
    (curve,) = training_curves(reduced)
    assert [list(series.y) for series in curve.left] == [[100.0, 50.0]]
    assert "parameters left, %" in html(reduced)
    plain = [{k: v for k, v in epoch.items() if k != "params_left"} for epoch in EPOCHS]
    assert "parameters left" not in html(replace(run, curves=({"step": "train", "epochs": plain},)))


def test_a_run_that_only_trains_says_so(run: Run) -> None:
    trained = replace(run, plan={"deployed": "weights.safetensors"})
    assert only_weights(trained)
    assert not only_weights(replace(run, plan={"deployed": "model.onnx"}))
    assert "weights before and after" in {figure.note for figure in figures(trained)}
    assert "gracile train recipe.json" in html(trained)
