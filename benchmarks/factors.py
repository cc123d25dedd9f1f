"""What data are worth to a decomposition: SVD of every layer of ResNet-56, with data and without.

Both have the same ranks. All convolutions but the first are factored at the same share of their full
rank; nothing is tuned. With data, outputs on 1,024 unlabelled training images are kept near and the lost
mean goes into the bias; without, the weights. Accuracy is top-1 on the test images, by which nothing is
chosen. Factored layers may have more multiply-adds than whole ones here: this compares ways to factor,
not networks to deploy.
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
from benchmarks.figure import write_svg
from benchmarks.rows import Row, benchmark_main
from gracile import data, decompose, measure, zoo
from gracile.records import DecomposePlan, Factored
from gracile.report.charts import Series

SHARES = (0.25, 0.375, 0.5, 0.625, 0.75)
CALIBRATION = 1024


def ranks_of(model: nn.Module, share: float, *, with_data: bool) -> DecomposePlan:
    """Every convolution but the first at one share of its full rank."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][1:]
    factored = []
    for name, layer in layers:
        (full,) = decompose.SVD().ranks(layer.weight.shape)[-1]
        rank = max(1, round(share * full))
        factored.append(
            Factored(
                layer=name, form="svd", ranks=(rank,), error=0.0,
                macs_before=0, macs_after=0, params_before=0, params_after=0,
            )
        )  # fmt: skip
    return DecomposePlan(layers=tuple(factored), with_data=with_data)


def accuracy(model: nn.Module, bundle: data.DataBundle) -> dict[str, Any]:
    """On all test images; ``right`` has a 1 for each that is classified rightly, else a 0."""
    predicted, labels = measure.predictions(model.eval(), bundle.test, 100)
    found = measure.accuracy(predicted, labels)
    right = "".join(str(int(p == t)) for p, t in zip(predicted, labels, strict=True))
    return {"accuracy": found.percent, "low": found.low, "high": found.high, "n": found.n, "right": right}


def cell(
    model: nn.Module, bundle: data.DataBundle, share: float, seed: int, *, with_data: bool
) -> dict[str, Any]:
    """Factor and measure one network."""
    images = bundle.calibration(CALIBRATION, seed) if with_data else None
    inputs = (torch.zeros(1, *bundle.input_shape),)
    plan = ranks_of(model, share, with_data=with_data)
    small = decompose.apply(model, plan, inputs=inputs, calibration=images, seed=seed)
    return {"share": share, "with_data": with_data, **accuracy(small, bundle)}


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every cell that is not kept."""
    bundle = data.load_data("cifar10", parsed.data_root)
    weights = Path(parsed.data_root) / "weights" / "cifar10_resnet56.safetensors"
    model = zoo.load_model("gracile:resnet56", weights=weights).eval()
    cells, entries = Cells(parsed.keep), []
    for share in parsed.shares:
        for with_data in (False, True):
            make = partial(cell, model, bundle, share, parsed.seed, with_data=with_data)
            entries.append(cells.get(f"svd {share} {'with' if with_data else 'without'} data", make))
    show(entries)
    if parsed.svg:
        draw(entries, parsed.svg)
    rows = [gain(*entries[at : at + 2]) for at in range(0, len(entries), 2)]
    return rows, [{k: v for k, v in entry.items() if k not in ("cell", "right")} for entry in entries]


def gain(without: dict[str, Any], having: dict[str, Any]) -> Row:
    """Points gained by data at one rank, with the 95 % interval of paired differences (normal).

    Example:
        >>> row = gain({"share": 0.5, "right": "0101"}, {"share": 0.5, "right": "1101"})
        >>> row.id, row.value, row.n
        ('resnet56.svd_0.5.gain_of_data', 25.0, 4)
    """
    apart = [100 * (int(b) - int(a)) for a, b in zip(without["right"], having["right"], strict=True)]
    mean = statistics.fmean(apart)
    half = 1.96 * statistics.stdev(apart) / len(apart) ** 0.5
    return Row(id=f"resnet56.svd_{having['share']:g}.gain_of_data", value=mean, unit="points", n=len(apart),
               spread=(mean - half, mean + half), must="> 0")  # fmt: skip


def show(entries: list[dict[str, Any]]) -> None:
    """Print every network."""
    table = Table("share of the rank", "kept near", "accuracy, %", "95 %")
    for e in entries:
        kept = "outputs" if e["with_data"] else "weights"
        table.add_row(f"{e['share']:.1%}", kept, f"{e['accuracy']:.1f}", f"{e['low']:.1f} to {e['high']:.1f}")
    Console().print(table)


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over the share of the rank, one curve for each way."""
    series = []
    for colour, (name, with_data) in enumerate((("weights kept near", False), ("outputs kept near", True))):
        own = [e for e in entries if e["with_data"] == with_data]
        x = [100 * e["share"] for e in own]
        series.append(Series(name=name, x=x, y=[e["accuracy"] for e in own], colour=colour))
    write_svg(path, series, x="share of the full rank, %", y="accuracy, %")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="of the full rank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path, help="write the figure here")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="factors", arguments=arguments))
