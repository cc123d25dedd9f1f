"""What the compressed model is compared with: the original, and the original only quantized."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gracile import export, fold, graph, quantize
from gracile.records import Artifact, LayerCost

from .health import check_activations
from .measuring import answers
from .recipe import MeasurePart
from .state import Bench, Outcome, State
from .steps.quantize import QuantizeStep

ORIGINAL_FILE = "reference/original.onnx"
INT8_FILE = "reference/int8-only.onnx"


@dataclass(frozen=True)
class Original:
    """Check the original, measure its accuracy, count its cost, write its float file."""

    measure: MeasurePart

    def __call__(self, state: State, bench: Bench) -> Outcome:
        """Leave the model as it is."""
        check_activations(state.model, bench.images)
        bench.tick("counting", 0, 3)
        cost = graph.cost(state.model, bench.inputs)
        bench.tick("accuracy", 1, 3)
        found = answers(state.model, bench.bundle, self.measure, bench.tick)
        bench.tick("float file", 2, 3)
        artifact = written(state.model, bench, ORIGINAL_FILE, "original, float")
        return Outcome(
            state=state,
            summary=f"accuracy {found.accuracy.percent:.1f} % on {found.accuracy.n:,} images, "
            f"{cost.params:,} parameters, {cost.macs:,} multiply-adds",
            detail={"macs": cost.macs, "params": cost.params, "activation_bytes": cost.activation_bytes},
            kept={
                "accuracy": found.accuracy.percent,
                "n": found.accuracy.n,
                "predictions": found.predicted.tolist(),
                "layers": [layer_row(layer) for layer in cost.layers if layer.weight_shape],
            },
            artifacts=(artifact,),
        )


def layer_row(layer: LayerCost) -> dict[str, Any]:
    return {"name": layer.name, "kind": layer.kind, "width": layer.weight_shape[0], "macs": layer.macs}


@dataclass(frozen=True)
class Int8Only:
    """Quantize and export the original as the recipe does the compressed model."""

    step: QuantizeStep

    def __call__(self, state: State, bench: Bench) -> Outcome:
        """Leave the model as it is."""
        artifact = int8_file(state, bench, self.step, INT8_FILE, "original, int8 only")
        return Outcome(
            state=state, summary=f"{artifact.size_bytes:,} bytes, for comparison", artifacts=(artifact,)
        )


def int8_file(state: State, bench: Bench, step: QuantizeStep, file: str, name: str) -> Artifact:
    """Fold a copy of the model, quantize it as ``step`` says, and export it to ``file``."""
    if not step.calibration:
        return written(quantize.ptq(state.model, bench.inputs, None, step.scheme()), bench, file, name)
    folded = fold.apply(state.model, fold.plan(state.model, bench.inputs))
    images = bench.calibration(step.calibration)
    quantized = quantize.ptq(folded, bench.inputs, images, step.scheme())
    return written(quantized, bench, file, name)


def written(model: nn.Module, bench: Bench, file: str, name: str) -> Artifact:
    """Export to ``file``, relative to the run's folder."""
    artifact = export.onnx(model, bench.inputs, bench.out / file)
    return replace(artifact, name=name, path=str(Path(file)))
