"""Pruning without training: ResNet-56 at fewer multiply-adds, calibrated on 1,024 unlabelled training images.

Float weights are the shared ``cifar10_resnet56.safetensors``; accuracy is top-1 on the first 1,000 test
images. Nothing was chosen on test images. The images for calibration are drawn anew for each of three seeds;
a row is their mean, its spread the 95 % interval of that mean (Student's t). The details hold the steps on
the way for comparison: channels simply removed, batch norms estimated anew, consumers refitted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from benchmarks.rows import Row, benchmark_main, interval
from gracile import data, measure, prune, zoo
from gracile.records import PrunePlan

BARS = {2.1: ">= 91.0", 3.3: ">= 80.0"}
SEEDS = (0, 1, 2)
STEPS: dict[str, dict[str, bool]] = {
    "channels removed": {"carry_constants": False, "reconstruct": False, "reestimate_bn": False},
    "constants carried": {"reconstruct": False, "reestimate_bn": False},
    "batch norm estimated anew": {"reconstruct": False},
    "least squares": {},
}


@dataclass(frozen=True)
class Bench:
    """The model, its data, and how many images calibrate it."""

    model: nn.Module
    bundle: data.DataBundle
    images: int

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *self.bundle.input_shape),)

    def plan(self, criterion: prune.Criterion, fewer: float, calibration: Tensor, seed: int) -> PrunePlan:
        budget = prune.Macs(fraction_kept=1 / fewer)
        return prune.plan(self.model, self.inputs, criterion=criterion, budget=budget,
                          calibration=calibration, seed=seed)  # fmt: skip

    def accuracy(self, model: nn.Module) -> float:
        predicted, labels = measure.predictions(model, self.bundle.test, 100)
        return measure.accuracy(predicted, labels).percent

    def results(self) -> Iterator[dict[str, Any]]:
        """One entry for each budget, way and seed: all steps of L1 once, the whole way with every seed."""
        float_accuracy = self.accuracy(self.model)
        yield {
            "macs_divided_by": 1.0,
            "criterion": "float",
            "step": "",
            "seed": None,
            "accuracy": float_accuracy,
        }
        for seed in SEEDS:
            calibration = self.bundle.calibration(self.images, seed)
            for fewer in BARS:
                if seed == SEEDS[0]:
                    plan = self.plan(prune.L1(), fewer, calibration, seed)
                    for step in STEPS:
                        yield self.result(plan, "l1, equal shares", step, fewer, calibration, seed)
                plan = self.plan(prune.Reconstruction(), fewer, calibration, seed)
                yield self.result(plan, "reconstruction", "least squares", fewer, calibration, seed)

    def result(
        self, plan: PrunePlan, criterion: str, step: str, fewer: float, calibration: Tensor, seed: int
    ) -> dict[str, Any]:
        small = prune.apply(
            self.model, plan, inputs=self.inputs, calibration=calibration, seed=seed, **STEPS[step]
        )
        return {
            "macs_divided_by": fewer,
            "criterion": criterion,
            "step": step,
            "seed": seed,
            "accuracy": self.accuracy(small),
            "macs": plan.macs_after,
            "params": plan.params_after,
        }


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Prune, refit, measure."""
    bundle = data.load_data("cifar10", arguments.data_root)
    weights = Path(arguments.data_root) / "weights" / "cifar10_resnet56.safetensors"
    model = zoo.load_model("gracile:resnet56", weights=weights).eval()
    bench = Bench(model, bundle, arguments.images)
    total = 1 + len(BARS) * (len(STEPS) + len(SEEDS))
    found = list(track(bench.results(), "pruning ResNet-56", total=total, console=Console(stderr=True)))
    show(found)
    return [row(found, fewer, must, len(bundle.test)) for fewer, must in BARS.items()], found


def row(found: list[dict[str, Any]], fewer: float, must: str, n: int) -> Row:
    """Mean and interval over the seeds of one budget."""
    percent = [
        e["accuracy"] for e in found if e["macs_divided_by"] == fewer and e["criterion"] == "reconstruction"
    ]
    return Row(id=f"resnet56.macs_{fewer}.no_training", value=statistics.fmean(percent), unit="%", n=n,
               spread=interval(percent), must=must)  # fmt: skip


def show(found: list[dict[str, Any]]) -> None:
    """Print every step."""
    table = Table("MACs /", "criterion", "step", "seed", "accuracy, %")
    for e in found:
        seed = "" if e["seed"] is None else str(e["seed"])
        table.add_row(f"{e['macs_divided_by']:g}", e["criterion"], e["step"], seed, f"{e['accuracy']:.1f}")
    Console().print(table)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=1024, help="unlabelled training images, default 1024")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="pruning", arguments=_arguments))
