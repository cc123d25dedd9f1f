"""Pruning for speech: SAD by channels, LID by single weights and by channels, and what a processor gains.

Both networks are trained here (seed given) on the training part and pruned, channels by reconstruction and
the same share of every layer behind the first and before the last (``--every-layer``: of every layer), then
tuned at the rate of training; a tenth of it, and three epochs, left SAD a point and a half lower on its
held-out clips. Single weights go by magnitude over all layers while the network is tuned, along the cubic
schedule over the first 60 % of the epochs, the original helping to teach; all at once and without the
original, three epochs, LID lost 2.5 points of its test clips. Nothing else is chosen on test examples. LID
has one speaker a language: its accuracy compares networks and says nothing about languages. Tuned networks
have seen the data more often than the originals, so a gain is not the pruning's.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cells import Cells
from benchmarks.rows import Row, benchmark_main
from benchmarks.trained import trained_once
from gracile import data, export, measure, prune, tune

TASKS: dict[str, dict[str, Any]] = {
    "sad": {"epochs": 10, "tune": 10, "lr": 1e-3, "batch_size": 64, "augment": False},
    "lid": {"epochs": 6, "tune": 3, "gradual": 6, "lr": 5e-4, "batch_size": 32, "augment": True},
}
CELLS = (
    ("sad", "channels", 0.8), ("lid", "elements", 0.95), ("lid", "channels", 0.95), ("lid", "nothing", 0.0),
)  # fmt: skip
KINDS = ("channels", "elements")
"""Made unless ``--kinds`` says otherwise; "nothing" is LID tuned as long as while single weights go."""


def config(task: str, arguments: argparse.Namespace, *, tuning: bool) -> tune.TuneConfig:
    """As trained, ``--tune-epochs`` long after pruning, or at a tenth of the rate with ``--tenth``."""
    chosen = TASKS[task]
    epochs = (arguments.tune_epochs or chosen["tune"]) if tuning else arguments.epochs or chosen["epochs"]
    return tune.TuneConfig(
        epochs=epochs,
        lr=chosen["lr"] / (10 if tuning and arguments.tenth else 1),
        optimizer="adamw",
        weight_decay=0.01,
        warmup_epochs=0.0 if tuning else 0.2,
        batch_size=chosen["batch_size"],
        augment=chosen["augment"],
        holdout=0.1,
        bf16=False if arguments.float32 else None,
        seed=arguments.seed,
    )


def settings_of(arguments: argparse.Namespace) -> str:
    """What besides its name and seed makes a cell, where it is not the default."""
    chosen = {"scope": arguments.scope, "tuned": arguments.tune_epochs, "tenth": arguments.tenth}
    plain = {"scope": "global", "tuned": None, "tenth": False}
    return "".join(f" {key} {value}" for key, value in chosen.items() if value != plain[key])


def accuracy(model: nn.Module, bundle: data.DataBundle) -> float:
    """Percent of the test examples."""
    predicted, labels = measure.predictions(model, bundle.test)
    return measure.accuracy(predicted, labels).percent


def trained(task: str, bundle: data.DataBundle, arguments: argparse.Namespace) -> nn.Module:
    """The network with weights, from ``--weights`` where it was trained before."""
    file = arguments.weights / f"{task}-{arguments.seed}.safetensors"
    return trained_once(file, f"gracile:{task}", bundle.train, config(task, arguments, tuning=False))


def pruned(
    task: str, kind: str, sparsity: float, bundle: data.DataBundle, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One cell: accuracy before, right after pruning and after tuning; speed-up where channels went."""
    model = trained(task, bundle, arguments)
    inputs = (torch.zeros(1, *bundle.input_shape),)
    before = accuracy(model, bundle)
    hooks: tuple[tune.Hook, ...] = ()
    chosen, loss = config(task, arguments, tuning=True), None
    if kind in ("elements", "nothing"):
        small, loss = copy.deepcopy(model), tune.Distillation(model, weight=0.5, bf16=chosen.bf16)
        chosen = replace(chosen, epochs=arguments.tune_epochs or TASKS[task]["gradual"])
    if kind == "elements":
        steps = max(int(len(bundle.train) * (1 - chosen.holdout)) // chosen.batch_size, 1)
        pace = prune.Pace(end=round(0.6 * chosen.epochs * steps), every=max(steps // 8, 1))
        hooks = (
            prune.GradualMasks(
                inputs, pace=pace, sparsity=sparsity, scope=arguments.scope, granularity=prune.Element(),
                criterion=prune.EntryNorm(), leave=() if arguments.every_layer else ("first",),
                seed=arguments.seed,
            ),
        )  # fmt: skip
    elif kind == "channels":
        leave = () if arguments.every_layer else ("first",)
        calibration = bundle.calibration(min(512, len(bundle.train)), arguments.seed)
        plan = prune.plan(
            model, inputs, criterion=prune.Reconstruction(), budget=prune.PerLayer(ratio=sparsity),
            leave=leave, calibration=calibration, seed=arguments.seed,
        )  # fmt: skip
        small = prune.apply(model, plan, inputs=inputs, calibration=calibration, seed=arguments.seed)
    right_after = accuracy(small, bundle) if kind == "channels" else None
    tune.fit(small, bundle.train, chosen, hooks=hooks, loss=loss, progress=True)
    found: dict[str, Any] = {
        "task": task, "kind": kind, "sparsity": sparsity, "seed": arguments.seed, "n": len(bundle.test),
        "before": before, "right_after": right_after, "tuned": accuracy(small, bundle),
        "params": sum(int(p.count_nonzero()) for p in small.parameters()),
        "params_before": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    if kind == "channels":
        found |= speedups(model, small, inputs, arguments)
    return found


def speedups(
    model: nn.Module, small: nn.Module, inputs: tuple[Tensor, ...], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Times as many examples a second in ONNX Runtime on this processor, taking turns."""
    with tempfile.TemporaryDirectory() as folder:
        candidates = []
        for name, net in (("original", model), ("pruned", small)):
            file = Path(folder) / f"{name}.onnx"
            export.onnx(net.eval(), inputs, file)
            candidates.append(measure.Candidate(name=name, runtime="ort", model=file))
        _, ratios = measure.bench(candidates, inputs=inputs[0].shape[1:], batches=arguments.batches,
                                  runs=arguments.runs)  # fmt: skip
    return {"speedup": {str(r.batch): [r.ratio, r.low, r.high] for r in ratios}}


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """SAD at 80 % of the channels loses 1.5 points at most; LID without 95 % of its weights loses nothing.

    A loss is in points of accuracy. LID without 95 % of its channels is only reported, in the table.
    """
    rows = []
    for e in entries:
        name = f"speech.{e['task']}.{e['kind']}_{100 * e['sparsity']:.0f}"
        must = {("sad", "channels"): "<= 1.5", ("lid", "elements"): "<= 0"}.get((e["task"], e["kind"]))
        loss = e["before"] - e["tuned"]
        if must is not None:
            rows.append(Row(id=f"{name}.loss", value=loss, unit="points", n=e["n"], must=must))
        if "speedup" in e:
            value, low, high = max(e["speedup"].values())
            rows.append(Row(id=f"{name}.speedup", value=value, spread=(low, high), unit="x",
                            n=len(e["speedup"]), must="> 1"))  # fmt: skip
    return rows


def show(entries: list[dict[str, Any]]) -> None:
    """Print every cell."""
    table = Table("network", "what goes", "before, %", "right after", "tuned", "parameters left", "speed-up")
    for e in entries:
        fast = ", ".join(f"{v[0]:.1f}x at {b}" for b, v in e.get("speedup", {}).items())
        table.add_row(e["task"], f"{e['sparsity']:.0%} of {e['kind']}", f"{e['before']:.2f}",
                      "" if e["right_after"] is None else f"{e['right_after']:.2f}", f"{e['tuned']:.2f}",
                      f"{e['params'] / e['params_before']:.1%}", fast)  # fmt: skip
    Console().print(table)


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Train where need be, prune, tune, measure; kept cells are not done again."""
    cells, entries = Cells(arguments.keep), []
    bundles: dict[str, data.DataBundle] = {}
    for task, kind, sparsity in CELLS:
        if task not in arguments.tasks.split(",") or kind not in arguments.kinds.split(","):
            continue
        if task not in bundles:
            options = {"cache": arguments.cache} if arguments.cache else {}
            bundles[task] = data.load_data(f"speech:{task}", arguments.data_root, **options)
        name = f"{task} {kind} {sparsity} {arguments.seed}{settings_of(arguments)}"
        entries.append(cells.get(name, partial(pruned, task, kind, sparsity, bundles[task], arguments)))
    show(entries)
    return rows_of(entries), entries


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", default="sad,lid", help="default sad,lid")
    parser.add_argument("--epochs", type=int, help="of training; default, 10 for SAD and 6 for LID")
    parser.add_argument(
        "--tune-epochs",
        type=int,
        help="default, 10 for SAD, 3 for LID, 6 while single weights go (documents: 1)",
    )
    parser.add_argument("--tenth", action="store_true", help="tune at a tenth of the rate of training")
    parser.add_argument("--scope", choices=("global", "layer"), default="global",
                        help="of single weights: the smallest of all, or as many of every layer")  # fmt: skip
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"default {','.join(KINDS)}; or nothing")
    parser.add_argument("--every-layer", action="store_true", help="thin the first layer too")
    parser.add_argument("--float32", action="store_true", help="no bfloat16")
    parser.add_argument("--batches", type=lambda t: [int(n) for n in t.split(",")], default=[1, 128])
    parser.add_argument("--runs", type=int, default=15, help="timed runs, default 15")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--weights", type=Path, default=Path("runs/speech"), help="folder of trained networks"
    )
    parser.add_argument("--cache", type=Path, help="folder of features; default, ~/.cache/gracile/features")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="speech", arguments=_arguments))
