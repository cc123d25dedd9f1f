"""All criteria at six sparsities on ResNet-20, right after pruning and after a short tuning, with a heat map.

Only inner channels go (the first convolution's of each block), the same share of every group. 512 training
images per seed score, calibrate and refit; accuracy is top-1 on the first test images, by which nothing is
chosen. "no refit": constants carried, batch norms estimated anew; "refit": least squares. Tuned cells see
25,000 training images once. `--collapse` adds the documents' cell: ResNet-56, gradient criterion, 60 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from benchmarks.rows import Row, benchmark_main
from gracile import data, graph, measure, prune, tune, zoo
from gracile.prune.criteria.criterion import Scores
from gracile.records import atomic_bytes

SPARSITIES = (20, 30, 40, 50, 60, 70)
SEEDS = (0, 1, 2)
NAMES = (*prune.CRITERIA, "merging")
STEPS = ("no refit", "refit")
TUNED = tuple((name, 60) for name in NAMES)  # selected cells: every criterion where they differ most
TUNE_IMAGES = 25_000
COLLAPSE = {"network": "resnet56", "criterion": "taylor", "sparsity": 60, "seed": 0, "step": "tuned"}
Cell = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """Scores that are there already; a criterion scores a network once for all sparsities."""

    scores: Scores
    marginal: bool = False
    needs_data: bool = False
    needs_labels: bool = False

    def __call__(self, scene: prune.Scene) -> Scores:
        return {group.name: self.scores[group.name] for group in scene.groups}


class Bench:
    """One network, its data, and the scores that were worked out."""

    def __init__(self, network: str, arguments: argparse.Namespace) -> None:
        self.arguments, self.network = arguments, network
        self.bundle = data.load_data("cifar10", arguments.data_root)
        weights = Path(arguments.data_root) / "weights" / f"cifar10_{network}.safetensors"
        self.model = zoo.load_model(f"gracile:{network}", weights=weights).eval()
        self.inputs = (torch.zeros(1, *self.bundle.input_shape),)
        self.scores: dict[tuple[str, int], Scores] = {}

    @cached_property
    def leave(self) -> tuple[str, ...]:
        """Everything but the channels within blocks."""
        names = [g.name for g in graph.trace(graph.capture(self.model, self.inputs)).groups]
        return tuple(n for n in names if not n.endswith(".conv1"))

    def labelled(self, seed: int) -> tuple[Tensor, Tensor]:
        return self.bundle.labelled(self.arguments.images, seed)

    def pruned(self, cell: Cell) -> nn.Module:
        """The network of one cell, before tuning."""
        name, seed = cell["criterion"], cell["seed"]
        images, _ = self.labelled(seed)
        budget = prune.PerLayer(ratio=cell["sparsity"] / 100)
        refit = cell["step"] != "no refit"
        if name == "merging":
            merged = prune.merge(self.model, self.inputs, budget=budget, leave=self.leave, seed=seed,
                                 calibration=images if refit else None)  # fmt: skip
            return merged.model
        criterion = Known(self.score(name, seed))
        plan = prune.plan(self.model, self.inputs, criterion=criterion, budget=budget, leave=self.leave)
        return prune.apply(
            self.model, plan, inputs=self.inputs, calibration=images, reconstruct=refit, seed=seed
        )

    def score(self, name: str, seed: int) -> Scores:
        """Scores of one criterion, worked out once a seed."""
        if (name, seed) not in self.scores:
            kept = _Keeping(prune.CRITERIA[name]())
            images, labels = self.labelled(seed)
            prune.plan(
                self.model,
                self.inputs,
                criterion=kept,
                budget=prune.PerLayer(ratio=0.5),
                leave=self.leave,
                calibration=images,
                labelled=(images, labels),
                seed=seed,
            )
            self.scores[name, seed] = kept.found
        return self.scores[name, seed]

    def accuracy(self, cell: Cell) -> float:
        """Percent of the test images, after tuning where the cell says so."""
        model = self.pruned(cell)
        if cell["step"] == "tuned":
            config = tune.TuneConfig(epochs=self.arguments.epochs, seed=cell["seed"], augment=True)
            order = torch.randperm(len(self.bundle.train), generator=torch.Generator().manual_seed(0))
            seen = len(order) if cell["network"] == "resnet56" else self.arguments.tune_images
            tune.fit(model, self.bundle.train.subset(order[:seen].tolist()), config)
        predicted, truth = measure.predictions(model, self.test, 100)
        return measure.accuracy(predicted, truth).percent

    @cached_property
    def test(self) -> Any:
        count = min(self.arguments.test_images, len(self.bundle.test))
        return self.bundle.test.subset(range(count))


class _Keeping:
    """A criterion that leaves its scores behind."""

    def __init__(self, inner: prune.Criterion) -> None:
        self.inner = inner
        self.found: Scores = {}
        self.marginal = False
        self.needs_data, self.needs_labels = inner.needs_data, inner.needs_labels

    def __call__(self, scene: prune.Scene) -> Scores:
        self.found = self.inner(scene)
        return self.found


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Every cell that is asked for, cheap ones first."""
    names, sparsities = arguments.criteria.split(","), [int(s) for s in arguments.sparsities.split(",")]
    for seed in [int(s) for s in arguments.seeds.split(",")]:
        for criterion in names:
            for sparsity in sparsities:
                for step in STEPS:
                    yield _cell("resnet20", criterion, sparsity, seed, step)
    if not arguments.no_tuning:
        for criterion, sparsity in TUNED:
            if criterion in names and sparsity in sparsities:
                yield _cell("resnet20", criterion, sparsity, 0, "tuned")
    if arguments.collapse:
        yield dict(COLLAPSE)


def _cell(network: str, criterion: str, sparsity: int, seed: int, step: str) -> Cell:
    return {"network": network, "criterion": criterion, "sparsity": sparsity, "seed": seed, "step": step}


def fill(wanted: Iterable[Cell], arguments: argparse.Namespace) -> list[Cell]:
    """Accuracy of every cell; those that ``--keep`` already holds are not run again."""
    kept: dict[str, float] = {}
    if arguments.keep and arguments.keep.exists():
        for line in arguments.keep.read_text().splitlines():
            entry = json.loads(line)
            kept[json.dumps(entry["cell"])] = entry["accuracy"]
    benches: dict[str, Bench] = {}
    found = []
    for cell in track(list(wanted), "cells", console=Console(stderr=True)):
        key = json.dumps(cell)
        if key not in kept:
            if cell["network"] not in benches:
                benches[cell["network"]] = Bench(cell["network"], arguments)
            kept[key] = benches[cell["network"]].accuracy(cell)
            if arguments.keep:
                with arguments.keep.open("a") as file:
                    file.write(json.dumps({"cell": cell, "accuracy": kept[key]}) + "\n")
        found.append({**cell, "accuracy": kept[key]})
    return found


def means(found: list[Cell], step: str) -> dict[str, dict[int, float]]:
    """Mean accuracy over the seeds by criterion and sparsity, ResNet-20."""
    table: dict[str, dict[int, list[float]]] = {}
    for entry in found:
        if entry["step"] == step and entry["network"] == "resnet20":
            row = table.setdefault(entry["criterion"], {})
            row.setdefault(entry["sparsity"], []).append(entry["accuracy"])
    return {name: {s: statistics.fmean(v) for s, v in row.items()} for name, row in table.items()}


def heat_map(tables: dict[str, dict[str, dict[int, float]]]) -> str:
    """Accuracies as a self-contained SVG, a block of cells for each step.

    Example:
        >>> "91.0" in heat_map({"refit": {"l1": {20: 91.0}}})
        True
    """
    parts, left, width, height, gap = [], 120, 46, 22, 40
    across = left
    rows = list(dict.fromkeys(name for table in tables.values() for name in table))
    for step, table in tables.items():
        columns = sorted({s for row in table.values() for s in row})
        parts.append(f'<text x="{across}" y="16" font-weight="bold">{step}</text>')
        for i, sparsity in enumerate(columns):
            parts.append(f'<text x="{across + width * i + 8}" y="34">{sparsity} %</text>')
            for j, name in enumerate(rows):
                value = table.get(name, {}).get(sparsity)
                if value is not None:
                    parts.append(_square(across + width * i, 42 + height * j, width, height, value))
        across += width * len(columns) + gap
    for j, name in enumerate(rows):
        parts.append(f'<text x="0" y="{42 + height * j + 15}">{name}</text>')
    size = (across, 50 + height * len(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def _square(x: int, y: int, width: int, height: int, value: float) -> str:
    share = min(max((value - 10) / 82, 0), 1)  # chance to the unpruned network
    colour = f"hsl({round(220 * share)},70%,{round(35 + 45 * abs(1 - 2 * share))}%)"
    ink = "black" if abs(1 - 2 * share) > 0.4 else "white"
    return (
        f'<rect x="{x}" y="{y}" width="{width - 1}" height="{height - 1}" fill="{colour}"/>'
        f'<text x="{x + 8}" y="{y + 15}" fill="{ink}">{value:.1f}</text>'
    )


def rows_of(found: list[Cell], test_images: int) -> list[Row]:
    """How much of the issue's table is there, and the documents' cell where it was run."""
    after = [e for e in found if e["network"] == "resnet20" and e["step"] != "tuned"]
    cells_ = {(e["criterion"], e["sparsity"]) for e in after}
    whole = len(NAMES) * len(SPARSITIES)
    rows = [Row(id="criteria.resnet20.cells", value=len(cells_), unit="cells", n=len(after),
                must=f">= {whole}")]  # fmt: skip
    for entry in found:
        if {k: v for k, v in entry.items() if k != "accuracy"} == COLLAPSE:
            rows.append(Row(id="resnet56.gradient.channels_60.tuned", value=entry["accuracy"], unit="%",
                            n=test_images, must=">= 90"))  # fmt: skip
    return rows


def show(found: list[Cell]) -> None:
    """Print a table for each step."""
    for step in (*STEPS, "tuned"):
        table = means(found, step)
        columns = sorted({s for row in table.values() for s in row})
        if not columns:
            continue
        shown = Table(f"{step}: criterion", *[f"{s} %" for s in columns])
        for name, row in table.items():
            shown.add_row(name, *[f"{row[s]:.1f}" if s in row else "" for s in columns])
        Console().print(shown)


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[Cell]]:
    """Fill the cells, print the tables, draw the heat map."""
    found = fill(cells(arguments), arguments)
    show(found)
    if arguments.svg:
        tables = {step: means(found, step) for step in (*STEPS, "tuned")}
        atomic_bytes(arguments.svg, heat_map({k: t for k, t in tables.items() if t}))
    return rows_of(found, arguments.test_images), found


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--criteria", default=",".join(NAMES), help="comma-separated; default all")
    add("--sparsities", default=",".join(map(str, SPARSITIES)), help="percent of the inner channels that go")
    add("--seeds", default=",".join(map(str, SEEDS)), help="of the images and of random scores")
    add("--images", type=int, default=512, help="training images that score and calibrate")
    add("--test-images", type=int, default=1000, help="the first so many test images")
    add("--epochs", type=int, default=1, help="of tuning; 10 at most for --collapse")
    add("--tune-images", type=int, default=TUNE_IMAGES, help="training images in an epoch of ResNet-20")
    add("--no-tuning", action="store_true", help="leave the tuned cells out")
    add("--collapse", action="store_true", help="add ResNet-56, gradient criterion, 60 %%, tuned")
    add("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")
    add("--svg", type=Path, help="write the heat map here")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="criteria", arguments=_arguments))
