"""A residual trunk pruned while training, by selective add: WRN-16-2 on CIFAR-10.

Two trainings of the same number of epochs from the same start, for each seed: one unpruned, one whose
branches lose channels after each of its first epochs until the wished share of the parameters has gone; no
epoch more. Channels go by the L1 norm under a budget of parameters, optimizer state included
(``gracile.surgery.apply_``). A row is the loss of accuracy on the test images, in points.

``--only-time`` trains nothing: it times coupled and selective pruning at the same budget of multiply-adds in
ONNX Runtime, in float and int8, and says whether moving channels costs more than it saves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from benchmarks.rows import Row, benchmark_main
from gracile import data, export, fold, measure, prune, quantize, surgery, tune, zoo
from gracile.graph import evaluating

SPEC = "gracile:wrn16_2"
CHOICES = ("coupled", "selective")
GONE = 0.82  # aimed at; a little above the bar, because whole channels go
PRUNED_UNTIL = 0.6  # share of the epochs after which nothing goes any more


class Shrink(tune.Hook):
    """Removes channels after each of the first epochs until a share of the parameters has gone.

    Args:
        inputs: Example inputs.
        gone: Share of the parameters to remove in all.
        epochs: Epochs after which it removes, from the first on.
        trunk: As in :func:`gracile.prune.plan`.
    """

    def __init__(self, inputs: tuple[torch.Tensor, ...], gone: float, epochs: int, trunk: str) -> None:
        self.inputs, self.gone, self.epochs, self.trunk = inputs, gone, epochs, trunk
        self.whole = 0
        self.left: list[int] = []

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Remove what brings the parameters to this epoch's share (cubic, most of it early)."""
        now = count(model)
        self.whole = self.whole or now
        if epoch <= self.epochs:
            share = self.gone * (1 - (1 - epoch / self.epochs) ** 3)
            kept = (1 - share) * self.whole / now
            with evaluating(model):
                plan = prune.plan(
                    model,
                    self.inputs,
                    criterion=prune.L1(),
                    budget=prune.Params(fraction_kept=kept),
                    leave=("last",),
                    trunk=self.trunk,  # type: ignore[arg-type]
                )
            surgery.apply_(model, plan, optimizer)
        self.left.append(count(model))


def count(model: nn.Module) -> int:
    """Parameters."""
    return sum(p.numel() for p in model.parameters())


def train(cell: dict[str, Any], bundle: data.DataBundle, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training from scratch, judged on the test images."""
    torch.manual_seed(cell["seed"])
    model = zoo.load_model(arguments.model)
    inputs = (torch.zeros(1, *bundle.input_shape),)
    config = tune.TuneConfig(
        epochs=arguments.epochs, lr=0.1, batch_size=128, weight_decay=5e-4, holdout=0.0, augment=True,
        warmup_epochs=0.5, seed=cell["seed"],
    )  # fmt: skip
    last = max(round(arguments.epochs * PRUNED_UNTIL), 1)
    shrink = Shrink(inputs, arguments.gone, last, "selective")
    examples = bundle.train
    if arguments.train_images:
        examples = examples.subset(list(range(arguments.train_images)))
    before = count(model)
    history = tune.fit(model, examples, config, hooks=(shrink,) if cell["pruned"] else (), progress=True)
    predicted, labels = measure.predictions(model.eval(), bundle.test, 256)
    return {
        "accuracy": measure.accuracy(predicted, labels).percent,
        "params": count(model),
        "params_gone": 1 - count(model) / before,
        "left": shrink.left,
        "epochs": len(history.epochs),
        "train_accuracy": [e.train_accuracy for e in history.epochs],
        "seconds": sum(e.seconds for e in history.epochs),
        "test_images": len(bundle.test),
    }


def time_choices(
    cell: dict[str, Any], bundle: data.DataBundle, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Throughput of selective relative to coupled pruning at one budget, in ONNX Runtime."""
    torch.manual_seed(0)
    model = zoo.load_model(arguments.model).eval()
    inputs = (torch.zeros(1, *bundle.input_shape),)
    images = bundle.calibration(64)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for trunk in CHOICES:
            budget = prune.Macs(fraction_kept=cell["macs"])
            plan = prune.plan(model, inputs, budget=budget, trunk=trunk)  # type: ignore[arg-type]
            small = surgery.apply(model, plan)
            small = fold.apply(small, fold.plan(small, inputs)).eval()
            if cell["int8"]:
                small = quantize.ptq(small, inputs, images.split(32), quantize.Scheme())
            files.append(Path(folder) / f"{trunk}.onnx")
            export.onnx(small, inputs, files[-1])
            found[f"{trunk}_macs"] = plan.macs_after
        candidates = [
            measure.Candidate(name=trunk, runtime="ort", model=file)
            for trunk, file in zip(CHOICES, files, strict=True)
        ]
        _, ratios = measure.bench(
            candidates, inputs=bundle.input_shape, batches=[arguments.batch], runs=arguments.runs, threads=1
        )
    return found | {"ratio": ratios[0].ratio, "low": ratios[0].low, "high": ratios[0].high}


Work = Callable[[dict[str, Any], data.DataBundle, argparse.Namespace], dict[str, Any]]


def kept(
    cells: list[dict[str, Any]], work: Work, bundle: data.DataBundle, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """One entry a cell; those that ``--keep`` holds for the same settings are not run again."""
    settings = {name: getattr(arguments, name) for name in ("model", "epochs", "gone", "train_images")}
    done: list[dict[str, Any]] = []
    if arguments.keep is not None and arguments.keep.exists():
        done = [json.loads(line) for line in arguments.keep.read_text().splitlines()]
    entries = []
    for cell in cells:
        wanted = cell | settings
        entry = next((e for e in done if e["cell"] == wanted), None)
        if entry is None:
            entry = {"cell": wanted, "result": work(cell, bundle, arguments)}
            if arguments.keep is not None:
                with arguments.keep.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
        entries.append(entry["cell"] | entry["result"])
    return entries


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Train (or time) every cell."""
    bundle = data.load_data(arguments.data, arguments.data_root)
    rows: list[Row] = []
    entries: list[dict[str, Any]] = []
    if not arguments.only_time:
        cells = [
            {"what": "train", "seed": seed, "pruned": pruned}
            for seed in range(arguments.seeds)
            for pruned in (False, True)
        ]
        entries += kept(cells, train, bundle, arguments)
        rows += rows_of(entries)
    if not arguments.only_train:
        cells = [
            {"what": "time", "int8": int8, "macs": macs} for int8 in (False, True) for macs in (0.5, 0.25)
        ]
        timed = kept(cells, time_choices, bundle, arguments)
        entries += timed
        rows += [
            Row(id=f"wrn16_2.selective_to_coupled.{'int8' if e['int8'] else 'float'}.macs_{e['macs']:g}",
                value=e["ratio"], unit="x", n=arguments.runs, spread=(e["low"], e["high"]))
            for e in timed
        ]  # fmt: skip
    for e in entries:
        Console().print({k: v for k, v in e.items() if k not in ("train_accuracy", "left")})
    return rows, entries


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """Share of the parameters that went, and what it cost against the same epochs unpruned."""
    whole = {e["seed"]: e for e in entries if not e["pruned"]}
    small = {e["seed"]: e for e in entries if e["pruned"]}
    lost = [whole[s]["accuracy"] - small[s]["accuracy"] for s in small]
    gone = [100 * e["params_gone"] for e in small.values()]
    n = next(iter(small.values()))["test_images"]
    return [
        Row(id="wrn16_2.selective_add.params_gone", value=min(gone), unit="%", n=len(gone), must=">= 80"),
        Row(id="wrn16_2.selective_add.points_lost", value=statistics.fmean(lost), unit="points", n=n,
            must="<= 1.5"),
        Row(id="wrn16_2.selective_add.epochs", value=max(e["epochs"] for e in small.values()), unit="epochs",
            n=len(small), must="<= 15"),
    ]  # fmt: skip


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=SPEC)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--epochs", type=int, default=15, help="of each training, default 15")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind, default 1")
    parser.add_argument("--gone", type=float, default=GONE, help=f"share of parameters, default {GONE}")
    parser.add_argument("--train-images", type=int, default=0, help="only the first so many; 0 for all")
    parser.add_argument("--only-train", action="store_true", help="leave out the timing")
    parser.add_argument("--only-time", action="store_true", help="leave out the training")
    parser.add_argument("--batch", type=int, default=32, help="batch size of the timing")
    parser.add_argument("--runs", type=int, default=15, help="timed runs")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep entries, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="selective_add", arguments=_arguments))
