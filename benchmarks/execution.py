"""Execution in integers: which kernels run a file of few bits, and how far it is from the simulation.

ResNet-56 with batch norm folded is quantized with the library's defaults, calibrated on unlabelled training
images; weights are rounded to the nearest, since execution does not depend on how they were chosen. The file
is run on test images by ONNX Runtime, and by OpenVINO where it is installed, and compared twice with the
simulation: value by value, every layer fed with the runtime's own values ("layer by layer"), the first
``--images`` images; and the outputs when both run freely, all images, in steps of the last scale. Where a
value lies between two steps nearer than float32 can tell, the two may round it differently. Layers of few
bits carry that on, which the second figure shows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.int8 import CHUNK, resnet56
from benchmarks.ptq import parted
from benchmarks.rows import Row, benchmark_main
from gracile import export, quantize

CELLS = ("W8A8", "W4A4", "W3A6", "W2A8")
BATCH = 100


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every number of bits in every runtime."""
    case = resnet56(parsed.data_root)
    (images, test), console = case.folds[0], Console(stderr=True)
    runtimes = ["ort", *(["openvino"] if find_spec("openvino") else [])]
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        for name in parsed.cells:
            weight_bits, activation_bits = parted(name)
            scheme = quantize.Scheme(
                weight_bits=weight_bits, activation_bits=activation_bits, rounding=quantize.Nearest()
            )
            with console.status(name):
                quantized = quantize.ptq(case.model, (images[:1],), images.split(CHUNK), scheme)
                path = Path(folder) / f"{name}.onnx"
                export.onnx(quantized, (images[:1],), path)
                entries += [
                    judged(name, runtime, quantized, path, test, parsed.images) for runtime in runtimes
                ]
    show(entries)
    return [row for entry in entries for row in rows_of(entry)], entries


def judged(
    name: str, runtime: str, quantized: quantize.QuantizedModel, path: Path, test: Any, images: int
) -> dict[str, Any]:
    """Layers that do not run in integers, and how far values and outputs are apart."""
    layers = [row for row in export.kernels(path, runtime=runtime) if row["bits"] is not None]
    free = torch.cat([
        export.output_steps(quantized, path, x, runtime=runtime) for x, _ in test.batches(BATCH)
    ])  # fmt: skip
    few = test.subset(range(min(images, len(test))))
    fed = [row for x, _ in few.batches(BATCH) for row in export.parity(quantized, path, x, runtime=runtime)]
    return {
        "bits": name,
        "runtime": runtime,
        "layers": len(layers),
        "layers_not_in_integers": sum(not row["integer"] for row in layers),
        "kernels": ", ".join(sorted({str(row["kernel"]) for row in layers})),
        "images_layer_by_layer": len(few),
        "largest_difference_steps": max(row["max_steps"] for row in fed),
        "most_values_that_differ": max(row["share"] for row in fed),
        "images": len(free),
        "images_within_a_step": int((free <= 1).sum()),
        "free_largest_difference_steps": float(free.max()),
    }


def rows_of(entry: dict[str, Any]) -> list[Row]:
    """All layers in integers, values within a step; how many outputs are is in the details."""
    name = f"execution.resnet56.{entry['bits']}.{entry['runtime']}"
    return [
        Row(id=f"{name}.layers_not_in_integers", value=entry["layers_not_in_integers"], unit="layers",
            n=entry["layers"], must="<= 0"),
        Row(id=f"{name}.layer_by_layer", value=entry["largest_difference_steps"], unit="steps",
            n=entry["images_layer_by_layer"], must="<= 1"),
    ]  # fmt: skip


def show(entries: list[dict[str, Any]]) -> None:
    """Print every file in every runtime."""
    table = Table("bits", "runtime", "layers in integers", "layer by layer, steps", "outputs within a step")
    for e in entries:
        integers = e["layers"] - e["layers_not_in_integers"]
        table.add_row(e["bits"], e["runtime"], f"{integers} of {e['layers']}",
                      f"{e['largest_difference_steps']:g}",
                      f"{e['images_within_a_step']} of {e['images']}")  # fmt: skip
    Console(stderr=True).print(table)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--cells", nargs="+", default=list(CELLS), help=f"default {' '.join(CELLS)}")
    parser.add_argument("--images", type=int, default=200, help="compared layer by layer, default 200")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="execution", arguments=arguments))
