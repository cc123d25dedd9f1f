"""Sparse ResNet-56: single weights (or kernels, or n of m) to zero within ten epochs, accuracy on test
images.

Weights start from the shared ``cifar10_resnet56.safetensors``. Sparsity grows by the cubic schedule (AGP)
over the first part of the epochs, over all layers but the first and the last; the rest of the epochs repairs.
The original network helps to teach (``--distill 0`` turns that off). The epoch is chosen on a held-out part
of the training images; accuracy is top-1 on the test images. With several seeds a row is their mean and the
95 % interval of that mean.

A cell is ``element:0.8``, ``kernel:0.6``, ``block:0.8`` or ``2:4``; rows, with their bars, are those of
elements in ten epochs at most, the others stand in the details. ``--keep`` names a JSON-lines file of
finished cells; beside it lie checkpoints, from which an unfinished cell goes on after its last epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks.rows import Row, benchmark_main, over_seeds
from gracile import data, measure, prune, tune, zoo
from gracile.errors import UsageError

MUST = {"element:0.8": ">= 92.4", "element:0.9": ">= 91.8"}


@dataclass(frozen=True)
class Cell:
    """One network to make; every field changes the result."""

    name: str
    seed: int
    epochs: int
    lr: float
    scope: str
    end: float
    distill: float
    bf16: bool | None
    train_images: int | None
    test_images: int | None

    @property
    def granularity(self) -> prune.Granularity:
        kind, _, number = self.name.partition(":")
        if kind.isdigit():
            return prune.NofM(n=int(kind), m=int(number))
        if kind not in prune.GRANULARITIES:
            known = ", ".join([*prune.GRANULARITIES, "2:4"])
            raise UsageError("--cells", wanted=f"KIND:SPARSITY with a kind of {known}", found=self.name)
        return prune.GRANULARITIES[kind]

    @property
    def sparsity(self) -> float | None:
        """None where it follows from the granularity."""
        return None if isinstance(self.granularity, prune.NofM) else float(self.name.partition(":")[2])

    def hook(self, inputs: tuple[torch.Tensor, ...], steps: int) -> prune.GradualMasks:
        """Masks that grow, about eight times an epoch; ``steps`` make an epoch."""
        scope: Any = "layer" if self.sparsity is None else self.scope
        last = self.epochs * steps - 1
        pace = prune.Pace(end=min(round(self.end * self.epochs * steps), last), every=max(steps // 8, 1))
        return prune.GradualMasks(inputs, pace=pace, sparsity=self.sparsity, scope=scope, seed=self.seed,
                                  granularity=self.granularity)  # fmt: skip


def train(cell: Cell, bundle: data.DataBundle, model: nn.Module, checkpoint: Path | None) -> dict[str, Any]:
    """Make one network and measure it."""
    config = tune.TuneConfig(epochs=cell.epochs, lr=cell.lr, seed=cell.seed, bf16=cell.bf16, augment=True)
    examples, test = bundle.train, bundle.test
    if cell.train_images is not None:
        examples = examples.subset(range(cell.train_images))
    if cell.test_images is not None:
        test = test.subset(range(cell.test_images))
    teacher = zoo.load_model("gracile:resnet56")
    teacher.load_state_dict(model.state_dict())
    loss = tune.Distillation(teacher, weight=cell.distill, bf16=cell.bf16) if cell.distill else None
    steps = max(int(len(examples) * (1 - config.holdout)) // config.batch_size, 1)
    inputs = (torch.zeros(1, *bundle.input_shape),)
    hook = cell.hook(inputs, steps)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        history = tune.fit(
            model, examples, config, loss=loss, hooks=[hook], checkpoint=checkpoint, progress=bars
        )
    assert hook.plan is not None
    held = dict(model.named_parameters())
    for mask in hook.plan.masks:  # the claim is about zeros, so they are counted in the network itself
        assert not held[mask.param].detach().cpu().numpy()[~mask.keep].any(), mask.param
    found = measure.accuracy(*measure.predictions(model.eval(), test, 100))
    return {
        "accuracy": found.percent,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "sparsity": hook.plan.found_sparsity,
        "weights": sum(p.numel() for p in model.parameters()),
        "zeros": hook.plan.of_all - hook.plan.kept,
        "best_epoch": history.best_epoch,
        "seconds": history.seconds,
        "epochs": [asdict(epoch) for epoch in history.epochs],
        "curve": [[point.step, point.sparsity] for point in hook.points],
    }


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """What was asked for, checked before any work."""
    cells = [
        Cell(
            name=name,
            seed=seed,
            epochs=arguments.epochs,
            lr=arguments.lr,
            scope=arguments.scope,
            end=arguments.end,
            distill=arguments.distill,
            bf16=False if arguments.float32 else None,
            train_images=arguments.train_images,
            test_images=arguments.test_images,
        )
        for name in arguments.cells.split(",")
        for seed in range(arguments.seeds)
    ]
    for cell in cells:
        assert cell.granularity.text
    return cells


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Train every cell that is not finished yet."""
    bundle = data.load_data("cifar10", arguments.data_root)
    weights = Path(arguments.data_root) / "weights" / "cifar10_resnet56.safetensors"
    entries = []
    for cell in cells_of(arguments):
        entry = kept(arguments.keep, cell)
        if entry is None:
            checkpoint = None
            if arguments.keep is not None:
                name = "-".join(str(value) for value in asdict(cell).values()).replace(":", "_")
                checkpoint = arguments.keep.with_suffix(".checkpoints") / f"{name}.safetensors"
            model = zoo.load_model("gracile:resnet56", weights=weights)
            entry = asdict(cell) | train(cell, bundle, model, checkpoint)
            if arguments.save is not None:
                arguments.save.mkdir(parents=True, exist_ok=True)
                file = arguments.save / f"{cell.name.replace(':', '_')}-{cell.seed}.safetensors"
                safetensors.torch.save_file(model.state_dict(), file)
            if arguments.keep is not None:
                with arguments.keep.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
        entries.append(entry)
    show(entries)
    names = dict.fromkeys(entry["name"] for entry in entries)
    barred = [name for name in names if name in MUST and arguments.epochs <= 10]
    return [row([e for e in entries if e["name"] == name]) for name in barred], entries


def kept(file: Path | None, cell: Cell) -> dict[str, Any] | None:
    """The finished entry of this very cell."""
    wanted = asdict(cell)
    for line in file.read_text().splitlines() if file is not None and file.exists() else ():
        entry: dict[str, Any] = json.loads(line)
        if all(entry.get(name) == value for name, value in wanted.items()):
            return entry
    return None


def row(entries: list[dict[str, Any]]) -> Row:
    """One granularity and sparsity over its seeds."""
    name = entries[0]["name"]
    return over_seeds(entries, f"resnet56.{name.replace(':', '_')}", MUST[name])


def show(entries: list[dict[str, Any]]) -> None:
    """Print every network."""
    table = Table("cell", "seed", "zeros", "accuracy, %", "95 %", "best epoch", "minutes")
    for e in entries:
        table.add_row(e["name"], str(e["seed"]), f"{100 * e['sparsity']:.1f} %", f"{e['accuracy']:.1f}",
                      f"{e['low']:.1f} to {e['high']:.1f}", str(e["best_epoch"]),
                      f"{e['seconds'] / 60:.1f}")  # fmt: skip
    Console().print(table)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", default="element:0.8,element:0.9", help="comma-separated, see above")
    parser.add_argument("--epochs", type=int, default=10, help="in all, default 10")
    parser.add_argument("--seeds", type=int, default=1, help="how many, default 1")
    parser.add_argument("--lr", type=float, default=0.01, help="highest learning rate, default 0.01")
    parser.add_argument("--scope", choices=("layer", "global"), default="global", help="default global")
    parser.add_argument("--end", type=float, default=0.6, help="share of the epochs for growth, default 0.6")
    parser.add_argument("--distill", type=float, default=0.5, help="weight of the original, default 0.5")
    parser.add_argument("--float32", action="store_true", help="train without bfloat16")
    parser.add_argument("--train-images", type=int, help="only the first so many")
    parser.add_argument("--test-images", type=int, help="only the first so many")
    parser.add_argument("--save", type=Path, help="folder for the weights, as benchmarks.archive takes them")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="elements", arguments=_arguments))
