"""Narrow ResNet-56: inner channels removed, then at most ten epochs of tuning, accuracy on test images.

Weights start from the shared ``cifar10_resnet56.safetensors``. Which channels go is chosen by reconstruction
on 1,024 unlabelled training images, over all residual branches together; what reads them is refitted, then
the network is tuned, the original helping to teach (``--distill 0`` turns that off). The epoch is chosen on a
held-out part of the training images; accuracy is top-1 on the test images.

A cell is ``inner:0.6`` (that share of the inner channels of all residual branches is gone), ``macs:2.55``
(multiply-adds divided by that; before any channel, whole residual branches go, those that move the outputs
least for what they cost, ``--branches`` of them), ``joint:2.55`` (multiply-adds divided by that, layers
narrowed, factored or both as ``gracile.joint`` chooses), or ``taylor:0.6`` (the same share of each layer,
ranked by the gradient criterion). ``--keep`` names a JSON-lines file of finished cells; beside it lie
checkpoints, from which an unfinished cell goes on after its last epoch.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks.cells import Cells
from benchmarks.rows import Row, benchmark_main, over_seeds
from gracile import data, graph, joint, measure, prune, tune, zoo
from gracile.errors import UsageError
from gracile.records import JointPlan, PrunePlan

FLOAT = 92.6
MUST = {
    "inner:0.6": ">= 91.5",
    "inner:0.8": ">= 88",
    "inner:0.9": ">= 82",
    "taylor:0.6": ">= 90",
    "macs:2.55": f">= {FLOAT - 0.5}",
    "joint:2.55": f">= {FLOAT - 0.5}",
}
SEEDS_OF = {"macs:2.55": 3, "joint:2.55": 3}
CALIBRATION = 1024
TRIALS = 128
"""Images by which branches are judged."""
EPOCHS = 10


def parted(name: str) -> tuple[str, float]:
    """What kind of cell, and its number."""
    kind, _, number = name.partition(":")
    if kind not in ("inner", "macs", "joint", "taylor") or not number:
        wanted = "inner:SHARE, macs:FACTOR, joint:FACTOR or taylor:SHARE"
        raise UsageError("--cells", wanted=wanted, found=name)
    return kind, float(number)


def without_branches(
    model: nn.Module, count: int, bundle: data.DataBundle, seed: int
) -> tuple[nn.Module, list[str]]:
    """The network without the residual branches that it misses least, and their names."""
    images = bundle.calibration(CALIBRATION, seed)
    inputs = (torch.zeros(1, *bundle.input_shape),)
    plan = prune.plan_branches(model, inputs, budget=prune.Branches(count=count), calibration=images[:TRIALS])
    return prune.remove_branches(model, plan, calibration=images), [branch.name for branch in plan.removed]


def plan_of(kind: str, number: float, model: nn.Module, bundle: data.DataBundle, seed: int) -> PrunePlan:
    """Which channels go; ``number`` is the share that goes, or what the multiply-adds are divided by."""
    inputs = (torch.zeros(1, *bundle.input_shape),)
    images, labels = bundle.labelled(CALIBRATION, seed)
    if kind == "taylor":
        return prune.plan(
            model, inputs, criterion=prune.Taylor(), budget=prune.PerLayer(ratio=number),
            labelled=(images, labels), seed=seed,
        )  # fmt: skip
    budget = prune.Global(ratio=number) if kind == "inner" else prune.Macs(fraction_kept=1 / number)
    return prune.plan(
        model, inputs, criterion=prune.Reconstruction(), budget=budget, calibration=images, seed=seed
    )


def narrow(
    name: str,
    seed: int,
    bundle: data.DataBundle,
    weights: Path,
    arguments: argparse.Namespace,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Prune, refit, tune and measure one network."""
    model = zoo.load_model("gracile:resnet56", weights=weights).eval()
    inputs = (torch.zeros(1, *bundle.input_shape),)
    kind, number = parted(name)
    whole, gone, macs = model, list[str](), graph.cost(model, inputs).macs
    if kind == "macs" and arguments.branches:
        whole, gone = without_branches(model, arguments.branches, bundle, seed)
        number *= graph.cost(whole, inputs).macs / macs
    images = bundle.calibration(CALIBRATION, seed)
    plan: PrunePlan | JointPlan
    if kind == "joint":
        budget = prune.Macs(fraction_kept=1 / number)
        plan = joint.plan(whole, inputs, budget=budget, calibration=images, seed=seed)
        groups = plan.prune.groups
        small = joint.apply(whole, plan, inputs=inputs, calibration=images, seed=seed)
    else:
        plan = plan_of(kind, number, whole, bundle, seed)
        groups = plan.groups
        small = prune.apply(whole, plan, inputs=inputs, calibration=images, seed=seed)
    right_after = accuracy(small, bundle).percent
    config = tune.TuneConfig(
        epochs=arguments.epochs, lr=arguments.lr, seed=seed, augment=True,
        warmup_epochs=0.2, bf16=False if arguments.float32 else None,
    )  # fmt: skip
    loss = tune.Distillation(model, weight=arguments.distill, bf16=config.bf16) if arguments.distill else None
    examples = bundle.train if arguments.train_images is None else bundle.train.subset(
        range(arguments.train_images))  # fmt: skip
    with Progress(console=Console(stderr=True), transient=True) as bars:
        history = tune.fit(small, examples, config, loss=loss, checkpoint=checkpoint, progress=bars)
    found = accuracy(small, bundle)
    return {
        "name": name,
        "seed": seed,
        "float": accuracy(model, bundle).percent,
        "right_after": right_after,
        "accuracy": found.percent,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "channels_gone": 1 - sum(len(g.keep) for g in groups) / sum(g.units for g in groups),
        "layers_factored": len(plan.decompose.layers) if isinstance(plan, JointPlan) else 0,
        "branches_gone": gone,
        "macs_divided_by": macs / plan.macs_after,
        "params": plan.params_after,
        "best_epoch": history.best_epoch,
        "seconds": history.seconds,
        "epochs": [asdict(epoch) for epoch in history.epochs],
    }


def accuracy(model: nn.Module, bundle: data.DataBundle) -> Any:
    """On all test images."""
    return measure.accuracy(*measure.predictions(model.eval(), bundle.test, 100))


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Make every cell that is not finished yet."""
    if not 1 <= arguments.epochs <= EPOCHS:
        raise UsageError("--epochs", wanted=f"1 to {EPOCHS}", found=str(arguments.epochs))
    bundle = data.load_data("cifar10", arguments.data_root)
    weights = Path(arguments.data_root) / "weights" / "cifar10_resnet56.safetensors"
    cells, entries = Cells(arguments.keep), []
    for name in arguments.cells.split(","):
        for seed in range(arguments.seeds or SEEDS_OF.get(name, 1)):
            key = (f"{name} seed {seed}, {arguments.epochs} epochs, lr {arguments.lr:g}, "
                   f"distill {arguments.distill:g}, images {arguments.train_images or 'all'}"
                   + (f", branches {arguments.branches}" if parted(name)[0] == "macs" else ""))  # fmt: skip
            checkpoint = None
            if arguments.keep is not None:
                file = key.replace(":", "_").replace(", ", "-").replace(" ", "_")
                checkpoint = arguments.keep.with_suffix(".checkpoints") / f"{file}.safetensors"
            make = partial(narrow, name, seed, bundle, weights, arguments, checkpoint)
            entries.append(cells.get(key, make))
    show(entries)
    names = dict.fromkeys(entry["name"] for entry in entries)
    return [row([e for e in entries if e["name"] == name]) for name in names if name in MUST], entries


def row(entries: list[dict[str, Any]]) -> Row:
    """One cell over its seeds: the mean, and the interval of the mean or of the one network."""
    name = entries[0]["name"]
    return over_seeds(entries, f"resnet56.{name.replace(':', '_')}.tuned", MUST[name])


def show(entries: list[dict[str, Any]]) -> None:
    """Print every network."""
    table = Table("cell", "seed", "channels gone", "MACs /", "right after, %", "tuned, %", "95 %", "epochs")
    for e in entries:
        table.add_row(e["name"], str(e["seed"]), f"{e['channels_gone']:.1%}", f"{e['macs_divided_by']:.2f}",
                      f"{e['right_after']:.1f}", f"{e['accuracy']:.1f}", f"{e['low']:.1f} to {e['high']:.1f}",
                      str(len(e["epochs"])))  # fmt: skip
    Console().print(table)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", default=",".join(MUST), help="comma-separated, see above")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"at most and by default {EPOCHS}")
    parser.add_argument("--seeds", type=int, help="of each cell; default 3 for macs:2.55, else 1")
    parser.add_argument("--lr", type=float, default=0.01, help="highest learning rate, default 0.01")
    parser.add_argument("--branches", type=int, default=6, help="that go before channels in macs:, default 6")
    parser.add_argument("--distill", type=float, default=0.5, help="weight of the original, default 0.5")
    parser.add_argument("--float32", action="store_true", help="train without bfloat16")
    parser.add_argument("--train-images", type=int, help="only the first so many")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="channels", arguments=_arguments))
