"""Speed by theory: multiply-adds and parameters against channel sparsity, from structure alone.

The documents' formula for a layer whose inputs and outputs are both thinned by P is 1 - (1 - P)^2 (Hurault
2019, table 4); in a residual block with its trunk whole it is P (figure 14); for VGG-19 60 % of the channels
take 80 % of the multiply-adds, an ideal speed-up of 5 (figure 17). Nothing here depends on weights or data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.figure import write_svg
from benchmarks.rows import Row, benchmark_main
from gracile import graph, zoo
from gracile.graph import Group, Provenance
from gracile.report.charts import Series

TABLE_4 = {0.2: 36.0, 0.4: 64.0, 0.6: 84.0, 0.8: 96.0, 0.9: 99.0}
SPARSITIES = tuple(TABLE_4)
NETS = ("resnet56", "vgg19", "sad", "lid")


def removal(groups: list[Group], sparsity: float) -> dict[str, tuple[int, ...]]:
    """That share of every group, its integer part."""
    return {g.name: tuple(range(int(sparsity * g.units + 1e-9))) for g in groups}


def pair(sparsity: float) -> float:
    """Percent of the multiply-adds that go in the second of two thinned convolutions."""
    net = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 100), (100, 100), (100, 3))))
    provenance = graph.trace(graph.capture(net, (torch.zeros(1, 3, 8, 8),)))
    layers = [provenance.cost(cut).layers[1].macs for cut in ({}, removal(list(provenance.groups), sparsity))]
    return 100 * (1 - layers[1] / layers[0])


def chosen(provenance: Provenance, trunk: bool) -> list[Group]:
    """Groups that one layer writes, and those of sums too when the trunk is thinned."""
    return [g for g in provenance.groups if trunk or len(g.writers) == 1]


def curve(name: str, trunk: bool) -> list[dict[str, Any]]:
    """One entry per sparsity: the whole network, and the layers that the documents treat.

    ``one_side_formula`` is the documents' share for a block with its trunk whole, with the integer parts that
    they leave out: of 16 channels 80 % are 12. Treated are all convolutions that lose outputs or inputs, the
    first and the last layer apart.
    """
    shape = zoo.input_shape(f"gracile:{name}") or ()
    model = zoo.load_model(f"gracile:{name}")
    provenance = graph.trace(graph.capture(model, (torch.zeros(1, *shape),)))
    groups = chosen(provenance, trunk)
    if name == "resnet56" and not trunk:
        groups = [g for g in groups if "conv1" in g.name and g.name.startswith("layer")]
    whole = provenance.cost()
    entries = []
    for sparsity in (0.0, *SPARSITIES):
        cost = provenance.cost(removal(groups, sparsity))
        treated = [
            (before.macs, after.macs)
            for before, after in zip(whole.layers[1:-1], cost.layers[1:-1], strict=True)
        ]
        gone = 100 * (1 - sum(b for _, b in treated) / sum(a for a, _ in treated))
        widths = [layer.weight_shape[0] for layer in whole.layers[1:-1]]
        wished = sum(a * int(sparsity * n + 1e-9) / n for (a, _), n in zip(treated, widths, strict=True))
        entries.append({
            "net": name, "trunk": trunk, "sparsity": sparsity, "macs": cost.macs, "params": cost.params,
            "macs_gone": 100 * (1 - cost.macs / whole.macs), "treated_macs_gone": gone,
            "one_side_formula": 100 * wished / sum(a for a, _ in treated),
            "params_gone": 100 * (1 - cost.params / whole.params),
            "ideal_speedup": whole.macs / cost.macs,
        })  # fmt: skip
    return entries


def rows_of(curves: dict[tuple[str, bool], list[dict[str, Any]]]) -> list[Row]:
    """Ours against the documents'; a difference is that of whole channels."""
    apart = max(abs(pair(s) - TABLE_4[s]) for s in SPARSITIES)
    rows = [Row(id="theory.two_layers.largest_difference", value=apart, unit="points", n=len(SPARSITIES),
                must="<= 0.01")]  # fmt: skip
    if ("resnet56", False) in curves:
        entries = [e for e in curves["resnet56", False] if e["sparsity"]]
        apart = max(abs(e["treated_macs_gone"] - e["one_side_formula"]) for e in entries)
        rows.append(Row(id="theory.resnet56.inner.largest_difference", value=apart, unit="points",
                        n=len(entries), must="<= 0.01"))  # fmt: skip
    if ("vgg19", False) in curves:
        at_60 = next(e for e in curves["vgg19", False] if e["sparsity"] == 0.6)
        rows.append(
            Row(id="theory.vgg19.macs_gone.60", value=at_60["macs_gone"], unit="%", n=1, must=">= 80")
        )
        rows.append(Row(id="theory.vgg19.ideal_speedup.60", value=at_60["ideal_speedup"], unit="x", n=1,
                        must=">= 5"))  # fmt: skip
    return rows


def show(curves: dict[tuple[str, bool], list[dict[str, Any]]]) -> None:
    """Print every curve."""
    table = Table(
        "network", "sparsity", "MACs gone", "of treated layers", "parameters gone", "ideal speed-up"
    )
    for (name, trunk), entries in curves.items():
        for e in entries[1:]:
            table.add_row(name + (", trunk too" if trunk else ""), f"{e['sparsity']:.0%}",
                          f"{e['macs_gone']:.1f} %", f"{e['treated_macs_gone']:.1f} %",
                          f"{e['params_gone']:.1f} %", f"{e['ideal_speedup']:.2f}x")  # fmt: skip
    Console().print(table)


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Compute, print, draw."""
    nets = arguments.nets.split(",")
    choices = [
        (name, trunk) for name in nets for trunk in ((False, True) if name == "resnet56" else (False,))
    ]
    curves = {choice: curve(*choice) for choice in choices}
    show(curves)
    if arguments.figure:
        series = [
            Series(name=name + (", trunk too" if trunk else ""), colour=i % 6,
                   x=[100 * e["sparsity"] for e in entries], y=[e["macs_gone"] for e in entries])
            for i, ((name, trunk), entries) in enumerate(curves.items())
        ]  # fmt: skip
        write_svg(arguments.figure, series, x="channels removed, %", y="multiply-adds gone, %")
    return rows_of(curves), [entry for entries in curves.values() for entry in entries]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help=f"default {','.join(NETS)}")
    parser.add_argument("--figure", type=Path, metavar="SVG", help="draw the curves here")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="theory", arguments=_arguments))
