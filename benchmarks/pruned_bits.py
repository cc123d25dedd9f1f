"""Fewer bits after pruning: half of ResNet-56's inner channels gone, then 8 to 4 bits, in ONNX Runtime.

Channels go by reconstruction on 1,024 unlabelled training images over all residual branches together, what
reads them is refitted, nothing is tuned. The narrow network is then quantized with the library's defaults on
the same images, weights at ``--bits``, activations at 8; accuracy is top-1 on the 1,000 test images beside
that of the narrow float network, image by image. The documents' figure 44 is the same curve with tuning.
``--keep`` names a JSON-lines file of finished cells.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks import ptq
from benchmarks.cells import Cells
from benchmarks.figure import write_svg
from benchmarks.int8 import CHUNK, folded, weights
from benchmarks.rows import Row, benchmark_main
from gracile import export, measure, prune, quantize, zoo
from gracile.data import DataBundle, load_data
from gracile.report.charts import Series

CALIBRATION = 1024
BITS = (8, 6, 5, 4)
GONE = 0.5
MUST = {5: "<= 0.7"}
"""Points lost against the narrow float network."""


def narrow(bundle: DataBundle, parsed: argparse.Namespace) -> nn.Module:
    """The pruned float network, batch norms folded."""
    model = zoo.load_model(
        "gracile:resnet56", weights=weights(parsed.data_root) / "cifar10_resnet56.safetensors"
    )
    images = bundle.calibration(CALIBRATION, parsed.seed)
    inputs = (torch.zeros(1, *bundle.input_shape),)
    plan = prune.plan(model.eval(), inputs, criterion=prune.Reconstruction(), budget=prune.Global(ratio=GONE),
                      calibration=images, seed=parsed.seed)  # fmt: skip
    small = prune.apply(model, plan, inputs=inputs, calibration=images, seed=parsed.seed)
    return folded(small.eval(), images[:1])


def quantized(bits: int, model: nn.Module, bundle: DataBundle, parsed: argparse.Namespace) -> dict[str, Any]:
    """Quantize, export and test at so many bits of weights."""
    images = bundle.calibration(CALIBRATION, parsed.seed)
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"W{bits}A8")
        files = [Path(folder) / f"{kind}.onnx" for kind in ("float", "quantized")]
        scheme = ptq.scheme_of(
            f"W{bits}A8", parsed, lambda done, of: bar.update(task, completed=done, total=of)
        )
        start = time.perf_counter()
        result = quantize.ptq(model, (images[:1],), images.split(CHUNK), scheme)
        seconds = time.perf_counter() - start
        export.onnx(model, (images[:1],), files[0])
        export.onnx(result, (images[:1],), files[1])
        before, labels = measure.predictions(measure.ort_runner(files[0]), bundle.test, 50)
        after, _ = measure.predictions(measure.ort_runner(files[1]), bundle.test, 50)
    return {
        "weight_bits": bits,
        "narrow_float": measure.accuracy(before, labels).percent,
        "accuracy": measure.accuracy(after, labels).percent,
        "seconds": seconds,
        **asdict(measure.compare(before, after, labels)),
    }


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every number of bits."""
    bundle = load_data("cifar10", parsed.data_root)
    cells, entries = Cells(parsed.keep), []
    model: nn.Module | None = None
    for bits in parsed.bits:
        key = f"W{bits}A8 {ptq.settings_of(parsed)}"
        if key not in cells.done and model is None:
            model = narrow(bundle, parsed)
        entries.append(cells.get(key, partial(quantized, bits, model, bundle, parsed)))  # type: ignore[arg-type]
    table = Table("weights", "narrow float, %", "quantized, %", "95 % of the difference", "seconds")
    for e in entries:
        table.add_row(f"{e['weight_bits']} bits", f"{e['narrow_float']:.1f}", f"{e['accuracy']:.1f}",
                      f"{e['low']:+.1f} to {e['high']:+.1f}", f"{e['seconds']:.0f}")  # fmt: skip
    Console().print(table)
    if parsed.svg:
        draw(entries, parsed.svg)
    return [
        Row(id=f"pruned_half.resnet56.W{e['weight_bits']}A8.points_lost", value=-e["difference"],
            unit="points", n=e["n"], spread=(-e["high"], -e["low"]), must=MUST[e["weight_bits"]])
        for e in entries if e["weight_bits"] in MUST
    ], entries  # fmt: skip


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over bits of weights, beside the narrow float network's."""
    bits = sorted(entries, key=lambda e: e["weight_bits"])
    x = [e["weight_bits"] for e in bits]
    series = [
        Series(name="narrow float", x=x, y=[e["narrow_float"] for e in bits]),
        Series(name="quantized, 8-bit activations", x=x, y=[e["accuracy"] for e in bits], colour=1),
    ]
    write_svg(path, series, x="bits of weights", y="accuracy, %")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--bits", type=int, nargs="+", choices=range(2, 9), default=list(BITS))
    parser.add_argument("--rounding", choices=sorted(quantize.ROUNDINGS), help="default, the library's own")
    parser.add_argument("--iterations", type=int, help="of block reconstruction")
    parser.add_argument("--images", type=int, help="that block reconstruction learns from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path, help="write the figure here")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")
    parser.set_defaults(held_out=None)


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="pruned_bits", arguments=arguments))
