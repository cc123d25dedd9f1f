"""Pruning or factoring, layer by layer under one budget, without training: ResNet-56 at fewer multiply-adds.

Float weights are the shared ``cifar10_resnet56.safetensors``; accuracy is top-1 on the test images, by which
nothing was chosen. For each seed 1,024 unlabelled training images are drawn: most rank channels and fit, a
quarter judges how much of the saving pruning brings and how much factoring. Beside it stands pruning alone
(``benchmarks.pruning``) on the same images. What is reported first is the difference of the two, image by
image.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.cells import Cells
from benchmarks.factors import accuracy
from benchmarks.rows import Row, benchmark_main, interval
from gracile import data, joint, prune, zoo
from gracile.records import JointPlan, Macs

FEWER = 2.1
CALIBRATION = 1024


def together(
    model: nn.Module, bundle: data.DataBundle, arguments: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Plan and carry out both, and measure."""
    inputs = (torch.zeros(1, *bundle.input_shape),)
    images = bundle.calibration(arguments.images, seed)
    plan = joint.plan(model, inputs, budget=Macs(fraction_kept=1 / FEWER), calibration=images, seed=seed)
    small = joint.apply(model, plan, inputs=inputs, calibration=images, seed=seed)
    return {"seed": seed, "way": "joint", **described(plan), **accuracy(small, bundle)}


def described(plan: JointPlan) -> dict[str, Any]:
    """The choice, in a line of a table."""
    factored = {one.layer for one in plan.decompose.layers}
    narrowed = {s.param.removesuffix(".weight") for s in plan.prune.slices if s.param.endswith(".weight")}
    return {
        "by_pruning": plan.by_pruning,
        "layers_factored": len(factored),
        "layers_narrowed_and_factored": len(factored & narrowed),
        "macs": plan.macs_after,
        "params": plan.params_after,
        "trials": [[t.by_pruning, t.divergence] for t in plan.trials],
    }


def pruned(
    model: nn.Module, bundle: data.DataBundle, arguments: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Pruning alone, as ``benchmarks.pruning`` does it."""
    inputs = (torch.zeros(1, *bundle.input_shape),)
    images = bundle.calibration(arguments.images, seed)
    plan = prune.plan(model, inputs, criterion=prune.Reconstruction(), budget=Macs(fraction_kept=1 / FEWER),
                      calibration=images, seed=seed)  # fmt: skip
    small = prune.apply(model, plan, inputs=inputs, calibration=images, seed=seed)
    return {"seed": seed, "way": "pruning", "macs": plan.macs_after, "params": plan.params_after,
            **accuracy(small, bundle)}  # fmt: skip


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every cell that is not kept."""
    bundle = data.load_data("cifar10", arguments.data_root)
    weights = Path(arguments.data_root) / "weights" / "cifar10_resnet56.safetensors"
    model = zoo.load_model("gracile:resnet56", weights=weights).eval()
    cells, entries = Cells(arguments.keep), []
    for seed in range(arguments.seeds):
        for way, make in (("pruning", pruned), ("joint", together)):
            key = f"{way} seed {seed}, {arguments.images} images"
            entries.append(cells.get(key, partial(make, model, bundle, arguments, seed)))
    show(entries)
    return rows_of(entries), [{k: v for k, v in e.items() if k not in ("cell", "right")} for e in entries]


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """Points gained on pruning alone, and the accuracy.

    Example:
        >>> alone = {"way": "pruning", "accuracy": 50.0, "n": 4, "right": "0101"}
        >>> both = {"way": "joint", "accuracy": 75.0, "n": 4, "right": "1101"}
        >>> [(row.id, row.value) for row in rows_of([alone, both])]
        [('resnet56.macs_2.1.joint_less_pruning', 25.0), ('resnet56.macs_2.1.joint', 75.0)]
    """
    alone, both = ([e for e in entries if e["way"] == way] for way in ("pruning", "joint"))
    apart = [
        100 * statistics.fmean(int(b) - int(a) for a, b in zip(one["right"], two["right"], strict=True))
        for one, two in zip(alone, both, strict=True)
    ]
    found = [entry["accuracy"] for entry in both]
    n = both[0]["n"]
    name = f"resnet56.macs_{FEWER:g}.joint"
    return [
        Row(id=f"{name}_less_pruning", value=statistics.fmean(apart), unit="points", n=n,
            spread=interval(apart), must=">= 0"),
        Row(id=name, value=statistics.fmean(found), unit="%", n=n, spread=interval(found), must=">= 91.0"),
    ]  # fmt: skip


def show(entries: list[dict[str, Any]]) -> None:
    """Print every network."""
    table = Table("seed", "way", "of the saving by pruning", "layers factored", "accuracy, %", "95 %")
    for e in entries:
        part = f"{e['by_pruning']:.0%}" if "by_pruning" in e else "all"
        table.add_row(str(e["seed"]), e["way"], part, str(e.get("layers_factored", 0)),
                      f"{e['accuracy']:.1f}", f"{e['low']:.1f} to {e['high']:.1f}")  # fmt: skip
    Console().print(table)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=CALIBRATION, help="unlabelled, default 1024")
    parser.add_argument("--seeds", type=int, default=3, help="default 3")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="joint", arguments=_arguments))
