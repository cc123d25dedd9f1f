"""The last stage: the deployed file beside the original - accuracy, speed, layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from gracile import graph, measure
from gracile.errors import MissingExtra
from gracile.records import (
    COMPRESSED,
    INT8_ONLY,
    ORIGINAL,
    Artifact,
    Cost,
    Headline,
    Ratio,
    Speed,
    bytes_text,
    runtime_text,
    to_plain,
)

from .measuring import Answers, answers
from .original import INT8_FILE, ORIGINAL_FILE, written
from .recipe import MeasurePart
from .state import Bench, Outcome, State


@dataclass(frozen=True)
class Compare:
    """Measure everything that the report compares."""

    part: MeasurePart

    def __call__(self, state: State, bench: Bench) -> Outcome:
        """Leave the model as it is; export it first where no step did since the last change."""
        artifacts: tuple[Artifact, ...] = ()
        if not state.deployed:
            taken = {artifact.path for stage in bench.done.values() for artifact in stage.artifacts}
            state = replace(state, deployed=_free_name(taken))
            artifacts = (written(state.current, bench, state.deployed, "to deploy"),)
        runtimes = self._available(bench)
        deployed = bench.out / state.deployed
        found = {
            name: answers(measure.RUNTIMES[name](deployed, self.part.threads), bench.bundle, self.part)
            for name in runtimes
        }
        speeds, ratios = self._speeds(bench, state, runtimes)
        best = headline(speeds, runtimes)
        cost = graph.cost(state.model, bench.inputs)
        before, after = self._headlines(bench, best, _reference(speeds, best), found[best.runtime], cost)
        after = replace(after, size_bytes=measure.size_bytes(deployed))
        original = bench.done["original"].kept
        predicted = np.array(original["predictions"], dtype=np.int64)
        comparison = measure.compare(predicted, found[best.runtime].predicted, found[best.runtime].labels)
        where = runtime_text(best.runtime)
        return Outcome(
            state=state,
            summary=f"accuracy {after.accuracy:.1f} % in {where}, {bytes_text(after.size_bytes)}",
            detail={"accuracies": {name: one.accuracy.percent for name, one in found.items()}},
            kept={
                "before": to_plain(before),
                "after": to_plain(after),
                "comparison": to_plain(comparison),
                "speeds": [to_plain(speed) for speed in speeds],
                "ratios": [to_plain(ratio) for ratio in ratios],
                "runtimes": runtimes,
                "layers": layer_table(original["layers"], cost.layers, state),
                "hardware": measure.hardware() | {"threads": self.part.threads or measure.usable_cores()},
                "versions": measure.versions(),
            },
            artifacts=artifacts,
        )

    def _headlines(
        self, bench: Bench, best: Speed, reference: Speed, found: Answers, cost: Cost
    ) -> tuple[Headline, Headline]:
        """The original's figures, and the deployed file's but for its size."""
        original = bench.done["original"]
        before = Headline(
            accuracy=original.kept["accuracy"],
            n=original.kept["n"],
            macs=original.detail["macs"],
            params=original.detail["params"],
            size_bytes=measure.size_bytes(bench.out / ORIGINAL_FILE),
            images_per_s=reference.images_per_s,
            runtime=reference.runtime,
            batch=best.batch,
        )
        after = replace(
            before,
            accuracy=found.accuracy.percent,
            n=found.accuracy.n,
            macs=cost.macs,
            params=cost.params,
            images_per_s=best.images_per_s,
            runtime=best.runtime,
        )
        return before, after

    def _available(self, bench: Bench) -> list[str]:
        """Runtimes for files that are asked for and installed; ONNX Runtime when that leaves none."""
        found = []
        for name in self.part.runtimes:
            try:
                if name != "torch":
                    measure.RUNTIMES[name](bench.out / ORIGINAL_FILE, self.part.threads)
                    found.append(str(name))
            except MissingExtra as error:
                bench.note(f"{name} is left out: {error.do}")
        return found or ["ort"]

    def _speeds(self, bench: Bench, state: State, runtimes: Sequence[str]) -> tuple[list[Speed], list[Ratio]]:
        """Time each runtime's models in turns with PyTorch's original; ratios are of the compressed model."""
        original = bench.restored("original").model if "torch" in self.part.runtimes else None
        speeds: dict[tuple[str, str, int], Speed] = {}
        ratios: list[Ratio] = []
        for place, runtime in enumerate(runtimes):
            candidates = [
                measure.Candidate(name=name, runtime=runtime, model=bench.out / file)
                for name, file in self._files(bench, state)
            ]
            if original is not None:
                candidates.append(measure.Candidate(name=ORIGINAL, runtime="torch", model=original))
            found, paired = measure.bench(
                candidates,
                inputs=bench.images,
                batches=self.part.batches,
                runs=self.part.runs,
                threads=self.part.threads,
                on_run=_told(bench, f"speed in {runtime}", place, len(runtimes)),
            )
            for speed in found:
                speeds.setdefault((speed.model, speed.runtime, speed.batch), speed)
            ratios += [_of_compressed(ratio) for ratio in paired]
        return list(speeds.values()), ratios

    def _files(self, bench: Bench, state: State) -> list[tuple[str, str]]:
        files = [(COMPRESSED, state.deployed), (ORIGINAL, ORIGINAL_FILE)]
        if "int8-only" in bench.done:
            files.insert(1, (INT8_ONLY, INT8_FILE))
        return files


def _free_name(taken: Collection[str]) -> str:
    """``model.onnx``, or the next number behind it where an earlier export has that name."""
    names = (f"model{'' if number == 1 else f'-{number}'}.onnx" for number in count(1))
    return next(name for name in names if name not in taken)


def _told(bench: Bench, text: str, place: int, places: int) -> Callable[[int, int], None]:
    return lambda done, total: bench.tick(text, place + done / total, places)


def _of_compressed(ratio: Ratio) -> Ratio:
    """Turn "reference against compressed", as measured, into "compressed against reference"."""
    warning = ratio.warning and "The spread is too wide to say which is faster, or by how much."
    return replace(
        ratio,
        candidate=ratio.reference,
        reference=ratio.candidate,
        ratio=1 / ratio.ratio,
        low=1 / ratio.high,
        high=1 / ratio.low,
        warning=warning,
    )


def headline(speeds: Sequence[Speed], runtimes: Any) -> Speed:
    """The compressed model at the largest batch, in the runtime that is fastest."""
    largest = max(speed.batch for speed in speeds)
    own = [s for s in speeds if s.model == COMPRESSED and s.batch == largest and s.runtime in runtimes]
    return max(own, key=lambda speed: speed.images_per_s)


def _reference(speeds: Sequence[Speed], best: Speed) -> Speed:
    """The original in PyTorch where that was measured, else in the runtime of the headline."""
    own = [speed for speed in speeds if speed.model == ORIGINAL and speed.batch == best.batch]
    return next(
        (speed for speed in own if speed.runtime == "torch"),
        next(speed for speed in own if speed.runtime == best.runtime),
    )


def layer_table(before: Sequence[dict[str, Any]], after: Sequence[Any], state: State) -> list[dict[str, Any]]:
    """One row a layer of the original: widths, multiply-adds, bits; a layer that is gone has width 0.

    A layer that was factored has a row for each part; the last stands for what the layer gave before.
    """
    now = {layer.name: layer for layer in after}
    bits = {} if state.quant is None else {weight.layer: weight.bits for weight in state.quant.weights}
    activations = set() if state.quant is None else state.quant.activation_bits
    common = activations.pop() if len(activations) == 1 else None
    rows = []
    for old in before:
        parts = [layer for layer in after if layer.name.rpartition(".")[0] == old["name"]]
        for part in parts or [now.get(old["name"])]:
            name, last = part.name if part else old["name"], not parts or part is parts[-1]
            width = part.weight_shape[0] if part and part.weight_shape else 0
            rows.append(
                {
                    "name": name,
                    "kind": part.kind if part else old["kind"],
                    "width_before": old["width"] if last else width,
                    "width_after": width,
                    "macs_before": old["macs"] if last else 0,
                    "macs_after": part.macs if part else 0,
                    "weight_bits": bits.get(name),
                    "activation_bits": common if name in bits else None,
                }
            )
    return rows
