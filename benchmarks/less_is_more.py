"""Less is More on LeNet-MNIST, LeNet-CIFAR and Cifar-quick: parameters gone and error, from scratch.

Each cell trains a recipe of ``recipes/`` with another seed; ``--plain`` adds the same training without
reduction. Epochs are chosen on a held-out part of the training images; the test images (all 10,000 of MNIST,
those of CIFAR-10 that the data folder holds: 1,000, or all) are looked at once, at the end.
The bars are the issue's for MNIST, and for the others what Marelli, Idiap-RR-03-2018, reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.rows import Row, benchmark_main, interval
from gracile import pipeline

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@dataclass(frozen=True)
class Net:
    """A recipe, its bars (percent of parameters gone, percent of error), and the seeds it is run with."""

    recipe: str
    gone: float
    error: float
    seeds: int


NETS = {
    "lenet-mnist": Net("lenet-mnist-less-is-more", 95.0, 0.93, 5),
    "lenet-cifar": Net("lenet-cifar", 85.5, 39.3, 3),
    "cifar-quick": Net("cifar-quick", 51.3, 27.1, 3),
}


def one(net: Net, seed: int, plain: bool, extra: Sequence[str], root: Path | None) -> dict[str, Any]:
    """Train one cell and say what came of it."""
    changes = [f"seed={seed}", *extra, *(["steps.train.less_is_more=null"] if plain else [])]
    recipe = pipeline.load_recipe(RECIPES / f"{net.recipe}.yaml", changes)
    with tempfile.TemporaryDirectory() as folder:
        record = pipeline.run(recipe, Path(folder) / "run", data_root=root, progress=False)
    step = next(step for step in record.steps if step.kind == "train")
    return {
        "params_before": record.before.params,
        "params_after": record.after.params,
        "gone": 100 * (1 - record.after.params / record.before.params),
        "error": 100 - record.after.accuracy,
        "n": record.after.n,
        "seconds": step.seconds,
        "widths": {layer["name"]: layer["width_after"] for layer in record.layers},
    }


def cells(parsed: argparse.Namespace) -> list[dict[str, Any]]:
    """Every cell that is asked for; what ``--keep`` holds is not run again."""
    kept: dict[str, dict[str, Any]] = {}
    if parsed.keep is not None and parsed.keep.exists():
        lines = [json.loads(line) for line in parsed.keep.read_text().splitlines()]
        kept = {line["key"]: line["result"] for line in lines}
    found = []
    for name in parsed.nets.split(","):
        net = NETS[name]
        for seed in range(parsed.seeds or net.seeds):
            for plain in (False, True) if parsed.plain else (False,):
                key = json.dumps([name, seed, plain, parsed.overrides])
                if key not in kept:
                    kept[key] = one(net, seed, plain, parsed.overrides, parsed.data_root)
                    if parsed.keep is not None:
                        parsed.keep.parent.mkdir(parents=True, exist_ok=True)
                        with parsed.keep.open("a") as file:
                            file.write(json.dumps({"key": key, "result": kept[key]}) + "\n")
                entry = {"net": name, "seed": seed, "plain": plain, **kept[key]}
                told = f"{name}, seed {seed}{', plain' if plain else ''}"
                Console(stderr=True).print(
                    f"{told}: {entry['gone']:.1f} % gone, error {entry['error']:.2f} %"
                )
                found.append(entry)
    return found


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """Mean reduction and mean error of each network over its seeds."""
    rows = []
    for name, net in NETS.items():
        own = [entry for entry in entries if entry["net"] == name and not entry["plain"]]
        if not own:
            continue
        gone, error = [e["gone"] for e in own], [e["error"] for e in own]
        for what, values, must in (
            ("params_gone", gone, f">= {net.gone}"),
            ("error", error, f"<= {net.error}"),
        ):
            rows.append(
                Row(
                    id=f"less_is_more.{name}.{what}",
                    value=round(statistics.fmean(values), 3),
                    unit="%",
                    n=len(values),
                    spread=interval(values),
                    must=must,
                )
            )
    return rows


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Train every cell and sum them up."""
    entries = cells(parsed)
    return rows_of(entries), entries


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--nets", default=",".join(NETS), help="comma-separated; default, all")
    parser.add_argument(
        "--seeds",
        type=int,
        help="seeds of each network; default, " + ", ".join(f"{k}: {v.seeds}" for k, v in NETS.items()),
    )
    parser.add_argument("--plain", action="store_true", help="also train without reduction")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="change the recipe",
    )


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="less_is_more", arguments=arguments))
