"""The main job: a pretrained ResNet-56 to a pruned, tuned, int8 file, and what it gained and lost.

Runs ``recipes/resnet56-cifar10.yaml`` as ``gracile compress`` does and reads its record. The speed is that of
the deployed file in the faster of ONNX Runtime and OpenVINO against PyTorch eager, float, at batch 128, timed
in turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import Row, benchmark_main
from gracile import pipeline
from gracile.measure import accuracy
from gracile.records import COMPRESSED, ORIGINAL, Ratio, Run, label, read_run

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "resnet56-cifar10.yaml"
BATCH = 128


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--out", type=Path, help="folder of the run; a temporary one otherwise")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="change the recipe",
    )


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Carry out the recipe and turn its record into rows."""
    recipe = pipeline.load_recipe(RECIPE, parsed.overrides)
    with tempfile.TemporaryDirectory() as folder:
        out = parsed.out or Path(folder) / "run"
        pipeline.run(recipe, out, data_root=parsed.data_root, resume=parsed.resume)
        record = read_run(out)
    return rows(record), details(record)


def rows(record: Run) -> list[Row]:
    """The figures with their bars."""
    before, after = record.before, record.after
    fastest = best_ratio(record.ratios)
    interval = accuracy_interval(record)
    timed = [speed for speed in record.speeds if speed.batch == BATCH]
    return [
        Row(
            id="main_job.accuracy", value=after.accuracy, unit="%", n=after.n, spread=interval, must=">= 91.8"
        ),
        Row(
            id="main_job.file_share_of_float_onnx",
            value=after.size_bytes / before.size_bytes,
            unit="",
            n=1,
            must="<= 0.3",
        ),
        Row(
            id="main_job.speedup_over_eager_float",
            value=None if fastest is None else fastest.ratio,
            unit="x",
            n=max((speed.runs for speed in timed), default=0),
            spread=None if fastest is None else (fastest.low, fastest.high),
            must=">= 8",
        ),
        Row(id="main_job.macs_divided_by", value=before.macs / after.macs, unit="x", n=1, must=">= 2.1"),
        Row(id="main_job.tuning_epochs", value=epochs(record), unit="", n=1, must="<= 3"),
        Row(
            id="main_job.proofs_passed",
            value=100.0 * sum(proof.passed for proof in record.proofs) / max(len(record.proofs), 1),
            unit="%",
            n=len(record.proofs),
            must=">= 100",
        ),
    ]


def best_ratio(ratios: tuple[Ratio, ...]) -> Ratio | None:
    """The largest ratio of the compressed file to PyTorch's original at the batch size in question."""
    own = [
        ratio
        for ratio in ratios
        if ratio.batch == BATCH
        and ratio.candidate in (label(COMPRESSED, "ort"), label(COMPRESSED, "openvino"))
        and ratio.reference == label(ORIGINAL, "torch")
    ]
    return max(own, key=lambda ratio: ratio.ratio, default=None)


def accuracy_interval(record: Run) -> tuple[float, float]:
    """A 95 % Wilson interval from the share and the count."""
    right = round(record.after.accuracy * record.after.n / 100)
    predicted = np.array([1] * right + [0] * (record.after.n - right))
    found = accuracy(predicted, np.ones(record.after.n, dtype=int))
    return found.low, found.high


def epochs(record: Run) -> int:
    """Epochs that all training steps together took."""
    return sum(len(step.detail["epochs"]) for step in record.steps if "epochs" in step.detail)


def details(record: Run) -> list[dict[str, Any]]:
    """Every speed that was measured."""
    return [
        {
            "model": speed.model,
            "runtime": speed.runtime,
            "batch": speed.batch,
            "images a second": speed.images_per_s,
            "low": speed.images_per_s_low,
            "high": speed.images_per_s_high,
            "runs": speed.runs,
        }
        for speed in record.speeds
    ]


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="main_job", arguments=arguments))
