"""Side by side with Torch-Pruning and torch-kirigami: same weights, same data, same criterion, same MACs.

Each tool removes channels by L1 until at most the same share of the multiply-adds is left (counted by one
counter for all), then the same training follows. Gracile appears twice: with its exact constants and its
least-squares refit on 1,024 unlabelled training images, and "surgery only", which like the peers uses no
data. Torch-Pruning and torch-kirigami take one ratio for every layer; the smallest that meets the budget is
found by bisection, for torch-kirigami (minutes a run) on widths that are known beforehand.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Callable
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
from gracile import data, graph, measure, prune, tune

NETS = ("resnet20b", "vgg19")
TOOLS = ("gracile", "gracile, surgery only", "torch-pruning", "torch-kirigami")
IMAGES = 1024


def macs(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Multiply-adds of one image, by the same counter for every tool."""
    return graph.cost(model, inputs).macs


def by_gracile(
    model: nn.Module, inputs: tuple[Tensor, ...], kept: float, calibration: Tensor | None, seed: int
) -> nn.Module:
    """L1 under a budget of multiply-adds, every layer allowed."""
    plan = prune.plan(model, inputs, criterion=prune.L1(), budget=prune.Macs(fraction_kept=kept), leave=())
    carry = calibration is not None
    return prune.apply(model, plan, inputs=inputs, calibration=calibration, carry_constants=carry, seed=seed)


def by_torch_pruning(model: nn.Module, inputs: tuple[Tensor, ...], kept: float) -> nn.Module:
    """The README's way: magnitude importance with p=1, one ratio, the classifier ignored."""
    import torch_pruning

    def at(ratio: float) -> nn.Module:
        small = copy.deepcopy(model)
        ignored = [m for m in small.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
        importance = torch_pruning.importance.MagnitudeImportance(p=1)
        pruner = torch_pruning.pruner.MetaPruner(small, inputs[0], importance=importance,
                                                 pruning_ratio=ratio, ignored_layers=ignored)  # fmt: skip
        pruner.step()
        return small

    limit = kept * macs(model, inputs)
    return at(smallest_ratio(lambda ratio: macs(at(ratio), inputs) <= limit))


def by_kirigami(model: nn.Module, inputs: tuple[Tensor, ...], kept: float) -> nn.Module:
    """The README's way: greedy group magnitude with p=1 under one channel ratio."""
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    provenance = graph.trace(graph.capture(model, inputs))
    limit = kept * provenance.cost().macs

    def meets(ratio: float) -> bool:
        cut = {g.name: range(g.units - int((1 - ratio) * g.units + 1e-9)) for g in provenance.groups}
        return provenance.cost({name: tuple(units) for name, units in cut.items()}).macs <= limit

    small = copy.deepcopy(model)
    pruner = Pruner(small, graph=DependencyGraph.build(small, args=(torch.cat([inputs[0]] * 2),)))
    budget, strategy = ChannelRatio(round(smallest_ratio(meets), 6)), Greedy(GroupMagnitude(p=1))
    result: nn.Module = pruner.prune(pruner.discover_candidates(), budget=budget, strategy=strategy)[0]
    return result


def smallest_ratio(meets: Callable[[float], bool], steps: int = 8) -> float:
    """Bisect in 0..1 to 1/256 for the smallest share removed that meets the budget.

    Example:
        >>> smallest_ratio(lambda ratio: ratio >= 0.3)
        0.30078125
    """
    low, high = 0, 2**steps - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle / 2**steps) else (middle + 1, high)
    return low / 2**steps


def trained(net: str, bundle: data.DataBundle, arguments: argparse.Namespace) -> nn.Module:
    """The network with weights, from ``--weights`` where it was trained before."""
    epochs = arguments.train_epochs
    file = arguments.weights / f"{net}-{epochs}-{arguments.seed}.safetensors"
    lr = 0.05 if net == "vgg19" else 0.1
    return trained_once(file, f"gracile:{net}", examples(bundle, arguments), config(lr, epochs, arguments))


def examples(bundle: data.DataBundle, arguments: argparse.Namespace) -> Any:
    """All training images, or the first ``--train-images`` for a trial."""
    count = arguments.train_images or len(bundle.train)
    return bundle.train.subset(range(min(count, len(bundle.train))))


def config(lr: float, epochs: int, arguments: argparse.Namespace) -> tune.TuneConfig:
    """The same for every tool."""
    return tune.TuneConfig(lr=lr, epochs=epochs, weight_decay=5e-4, warmup_epochs=0.2, augment=True,
                           bf16=False if arguments.float32 else None, seed=arguments.seed)  # fmt: skip


def parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in model.parameters())


def accuracy(model: nn.Module, bundle: data.DataBundle) -> float:
    """Percent of the test images."""
    predicted, labels = measure.predictions(model, bundle.test, 100)
    return measure.accuracy(predicted, labels).percent


def cell(net: str, tool: str, bundle: data.DataBundle, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prune by one tool, judge, train on, judge again."""
    model = trained(net, bundle, arguments)
    inputs, kept = (torch.zeros(1, *bundle.input_shape),), 1 / arguments.fewer
    calibration = bundle.calibration(IMAGES, arguments.seed) if tool == "gracile" else None
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        if tool.startswith("gracile"):
            small = by_gracile(model, inputs, kept, calibration, arguments.seed)
        else:
            small = {"torch-pruning": by_torch_pruning, "torch-kirigami": by_kirigami}[tool](
                model, inputs, kept
            )
    seconds = time.perf_counter() - start
    for parameter in small.parameters():
        parameter.requires_grad_(True)
    found = {
        "net": net, "tool": tool, "seed": arguments.seed, "n": len(bundle.test), "seconds": seconds,
        "before": accuracy(model, bundle), "right_after": accuracy(small, bundle),
        "macs_kept": macs(small, inputs) / macs(model, inputs),
        "params_kept": parameters(small) / parameters(model),
    }  # fmt: skip
    tune.fit(small, examples(bundle, arguments), config(0.01, arguments.epochs, arguments), progress=True)
    return {**found, "epochs": arguments.epochs, "tuned": accuracy(small, bundle)}


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """Gracile less the better peer, in points: right after, and after the same training."""
    rows = []
    for net in dict.fromkeys(e["net"] for e in entries):
        found = {e["tool"]: e for e in entries if e["net"] == net}
        peers = [e for tool, e in found.items() if not tool.startswith("gracile")]
        if "gracile" not in found or not peers:
            continue
        for when, must in (("right_after", "> 0"), ("tuned", ">= -0.5")):
            ahead = found["gracile"][when] - max(e[when] for e in peers)
            rows.append(Row(id=f"side_by_side.{net}.{when}.ahead", value=ahead, unit="points",
                            n=found["gracile"]["n"], must=must))  # fmt: skip
        over = max(e["macs_kept"] for e in found.values())
        rows.append(Row(id=f"side_by_side.{net}.most_macs_kept", value=100 * over, unit="%", n=len(found),
                        must=f"<= {100 / found['gracile']['fewer']:.4g}"))  # fmt: skip
    return rows


def show(entries: list[dict[str, Any]]) -> None:
    """Print every cell."""
    table = Table(
        "network", "tool", "MACs left", "params left", "before", "right after", "tuned", "s to prune"
    )
    for e in entries:
        table.add_row(e["net"], e["tool"], f"{e['macs_kept']:.1%}", f"{e['params_kept']:.1%}",
                      f"{e['before']:.2f}", f"{e['right_after']:.2f}", f"{e['tuned']:.2f}",
                      f"{e['seconds']:.1f}")  # fmt: skip
    Console().print(table)


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every network by every tool; kept cells are not done again."""
    cells, bundle = Cells(arguments.keep), data.load_data("cifar10", arguments.data_root)
    entries = []
    for net in arguments.nets.split(","):
        for tool in arguments.tools.split(";"):
            name = f"{net} {tool} {arguments.fewer} {arguments.epochs} {arguments.seed}"
            entry = cells.get(name, partial(cell, net, tool, bundle, arguments))
            entries.append({**entry, "fewer": arguments.fewer})
    show(entries)
    return rows_of(entries), entries


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help=f"default {','.join(NETS)}")
    parser.add_argument(
        "--tools", default=";".join(TOOLS), help=f"with semicolons; default {';'.join(TOOLS)}"
    )
    parser.add_argument(
        "--fewer", type=float, default=2.1, help="divide the multiply-adds by this, default 2.1"
    )
    parser.add_argument("--train-epochs", type=int, default=12, help="of the original, default 12")
    parser.add_argument("--epochs", type=int, default=3, help="after pruning, default 3")
    parser.add_argument("--train-images", type=int, help="default, all 50,000")
    parser.add_argument("--float32", action="store_true", help="no bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=Path("runs/side_by_side"), help="trained networks")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="side_by_side", arguments=_arguments))
