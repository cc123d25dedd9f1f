"""A run that only trains: the network before, the weights file, and what training made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from gracile import graph, measure
from gracile.records import Artifact, Headline, to_plain

from .checkpoint import write_weights
from .compare import layer_table
from .measuring import answers
from .original import layer_row
from .recipe import MeasurePart
from .state import Bench, Outcome, State

START_FILE = "reference/start.safetensors"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Start:
    """Keep the weights before training, count the network's cost, measure its accuracy."""

    measure: MeasurePart

    def __call__(self, state: State, bench: Bench) -> Outcome:
        """Leave the model as it is."""
        cost = graph.cost(state.model, bench.inputs)
        found = answers(state.model, bench.bundle, self.measure, bench.tick)
        artifact = saved(state.model, bench.out, START_FILE, "before training")
        return Outcome(
            state=state,
            summary=f"before training: accuracy {found.accuracy.percent:.1f} % on {found.accuracy.n:,} "
            f"images, {cost.params:,} parameters, {cost.macs:,} multiply-adds",
            detail={"macs": cost.macs, "params": cost.params},
            kept={
                "accuracy": found.accuracy.percent,
                "n": found.accuracy.n,
                "predictions": found.predicted.tolist(),
                "layers": [layer_row(layer) for layer in cost.layers if layer.weight_shape],
            },
            artifacts=(artifact,),
        )


@dataclass(frozen=True)
class Trained:
    """Write the weights and compare them with those before training."""

    measure: MeasurePart

    def __call__(self, state: State, bench: Bench) -> Outcome:
        """Leave the model as it is; its weights file is what the run is for."""
        found = answers(state.model, bench.bundle, self.measure, bench.tick)
        cost = graph.cost(state.model, bench.inputs)
        artifact = saved(state.model, bench.out, WEIGHTS_FILE, "trained weights")
        start = bench.done["original"]
        before = Headline(
            accuracy=start.kept["accuracy"],
            n=start.kept["n"],
            macs=start.detail["macs"],
            params=start.detail["params"],
            size_bytes=measure.size_bytes(bench.out / START_FILE),
            images_per_s=0.0,
            runtime="torch",
            batch=self.measure.batch_size,
        )
        after = replace(
            before,
            accuracy=found.accuracy.percent,
            macs=cost.macs,
            params=cost.params,
            size_bytes=artifact.size_bytes,
        )
        predicted = np.array(start.kept["predictions"], dtype=np.int64)
        return Outcome(
            state=replace(state, deployed=WEIGHTS_FILE),
            summary=f"accuracy {found.accuracy.percent:.2f} % on {found.accuracy.n:,} images, "
            f"{cost.params:,} parameters",
            detail={"accuracies": {"torch": found.accuracy.percent}},
            kept={
                "before": to_plain(before),
                "after": to_plain(after),
                "comparison": to_plain(measure.compare(predicted, found.predicted, found.labels)),
                "speeds": [],
                "ratios": [],
                "runtimes": [],
                "layers": layer_table(start.kept["layers"], cost.layers, state),
                "hardware": measure.hardware() | {"threads": measure.usable_cores()},
                "versions": measure.versions(),
            },
            artifacts=(artifact,),
        )


def saved(model: nn.Module, out: Path, file: str, name: str) -> Artifact:
    """Write the weights to ``file``, relative to the run's folder ``out``."""
    checksum = write_weights(out / file, model)
    return Artifact(name=name, path=file, sha256=checksum, size_bytes=measure.size_bytes(out / file))
