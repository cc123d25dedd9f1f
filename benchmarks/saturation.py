"""Int8 on x86 without VNNI: what sums of two products in 16 bits cost, and what each way around them costs.

On such a processor the kernels for unsigned activations and signed weights add products in pairs of 16
bits, which stop at their ends. Each model is calibrated and tested as in ``benchmarks.int8`` and written five
times: by Gracile with the full range of 8 bits, with half of it (``reduce_range``), and with the full range
as unsigned weights; and by ``quantize_static`` without and with its own ``reduce_range``. Every file runs in
ONNX Runtime with its default settings, the first two in OpenVINO as well (where it is installed). Timed in
turns with the float file, in ONNX Runtime. The command refuses to run on a processor that has VNNI.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from torch import Tensor

from benchmarks.cells import Cells
from benchmarks.int8 import CASES, CHUNK, Case, by_quantize_static
from benchmarks.rows import Row, benchmark_main
from gracile import export, measure, quantize
from gracile.errors import UsageError
from gracile.observe import lacks_vnni
from gracile.records import Comparison

OURS = {
    "full range": (False, "int8"),
    "half range": (True, "int8"),
    "full range, unsigned weights": (False, "uint8"),
}
"""Whether the range is reduced, and how weights are written."""
THEIRS = {"quantize_static": False, "quantize_static, reduce_range": True}
IN_OPENVINO = ("full range", "half range")
AT = 50  # images at a time


def files_of(case: Case, fold: int, folder: Path) -> tuple[dict[str, Path], dict[str, dict[str, int]]]:
    """Every file of one fold, and the layers of ours that may overflow."""
    images = case.folds[fold][0]
    inputs, stem = (images[:1],), f"{case.name}_{fold}_"
    made = {"float": folder / f"{stem}float.onnx"}
    export.onnx(case.model, inputs, made["float"])
    found = {}
    for kind, (reduced, written) in OURS.items():
        scheme = quantize.Scheme(reduce_range=reduced)
        quantized = quantize.ptq(case.model, inputs, images.split(CHUNK), scheme)
        made[kind] = folder / f"{stem}{kind.replace(' ', '_')}.onnx"
        export.onnx(quantized, inputs, made[kind], weights="uint8" if written == "uint8" else "int8")
        beyond = quantize.may_overflow(quantized) if written == "int8" else ()
        channels = sum(one.channels for one in beyond)
        found[kind] = {"layers_that_may_overflow": len(beyond), "channels_that_may_overflow": channels}
    prepared = folder / f"{stem}prepared.onnx"
    quant_pre_process(str(made["float"]), str(prepared))
    for kind, reduced in THEIRS.items():
        made[kind] = folder / f"{stem}{kind.replace(', ', '_')}.onnx"
        by_quantize_static(prepared, images, made[kind], reduce_range=reduced)
    return made, found


def compared(
    case: Case, files: list[dict[str, Path]], kind: str, runner: Callable[[Path], Any]
) -> Comparison:
    """A file in a runtime against the float file in ONNX Runtime, over all folds."""
    parts: list[tuple[Any, Any, Any]] = []
    for made, (_, test) in zip(files, case.folds, strict=True):
        before, labels = measure.predictions(measure.ort_runner(made["float"]), test, AT)
        after, _ = measure.predictions(runner(made[kind]), test, AT)
        parts.append((before, after, labels))
    before, after, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return measure.compare(before, after, labels)


def speed(files: dict[str, Path], shape: tuple[int, ...], batch: int, runs: int) -> dict[str, list[float]]:
    """Throughput of every file relative to the float one, in turns."""
    order = ["float", *OURS, *THEIRS]
    candidates = [measure.Candidate(name=kind, runtime="ort", model=files[kind]) for kind in order]
    _, ratios = measure.bench(candidates, inputs=shape, batches=[batch], runs=runs)
    return {r.candidate.removesuffix(" in ort"): [r.ratio, r.low, r.high] for r in ratios}


def cells_of(name: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """One model, whole."""
    case = CASES[name](parsed.data_root)
    with tempfile.TemporaryDirectory() as folder:
        both = [files_of(case, fold, Path(folder)) for fold in range(len(case.folds))]
        files = [made for made, _ in both]
        entries = []
        for kind in (*OURS, *THEIRS):
            runners: dict[str, Callable[[Path], Any]] = {"ort": measure.ort_runner}
            if kind in IN_OPENVINO and find_spec("openvino") is not None:
                runners["openvino"] = measure.openvino_runner
            for runtime, runner in runners.items():
                one = compared(case, files, kind, runner)
                entries.append({
                    "model": name, "file": kind, "runtime": runtime, "n": one.n,
                    "points_lost": -one.difference, "low": -one.high, "high": -one.low,
                    "same_predictions_percent": one.agreement, **both[0][1].get(kind, {}),
                })  # fmt: skip
        shape: Tensor = case.folds[0][0]
        ratios = speed(files[0], tuple(shape.shape[1:]), case.batch, parsed.runs)
    for entry in entries:
        if entry["runtime"] == "ort" and entry["file"] in ratios:
            value, low, high = ratios[entry["file"]]
            entry |= {"throughput_over_float": value, "throughput_low": low, "throughput_high": high}
    return {"name": name, "runs": parsed.runs, "batch": case.batch, "entries": entries}


def rows_of(cell: dict[str, Any]) -> list[Row]:
    """What must not be lost where nothing can overflow, and what half the range must not cost in time.

    Example:
        >>> one = {"file": "half range", "runtime": "ort", "points_lost": 0.1, "low": -0.1, "high": 0.3,
        ...        "n": 10, "throughput_over_float": 1.5, "throughput_low": 1.4, "throughput_high": 1.6}
        >>> [(row.id, row.ok) for row in rows_of({"name": "net", "runs": 6, "entries": [one]})]
        [('saturation.net.half_range.ort.points_lost', True), ('saturation.net.half_range.over_float', True)]
    """
    rows = []
    for entry in cell["entries"]:
        kind = entry["file"].replace(",", "").replace(" ", "_")
        if entry["file"] not in ("half range", "full range, unsigned weights"):
            continue
        name = f"saturation.{cell['name']}.{kind}"
        lost, spread = entry["points_lost"], (entry["low"], entry["high"])
        rows.append(Row(id=f"{name}.{entry['runtime']}.points_lost", value=lost, unit="points", n=entry["n"],
                        spread=spread, must="<= 0.5"))  # fmt: skip
        if entry["file"] == "half range" and "throughput_over_float" in entry:
            spread = (entry["throughput_low"], entry["throughput_high"])
            rows.append(Row(id=f"{name}.over_float", value=entry["throughput_over_float"], unit="x",
                            n=cell["runs"], spread=spread, must=">= 1"))  # fmt: skip
    return rows


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every model that is not kept."""
    if not lacks_vnni():
        raise UsageError("this processor", wanted="x86 without VNNI", found="one whose sums are whole")
    cells, rows, details = Cells(parsed.keep), list[Row](), list[dict[str, Any]]()
    for name in parsed.models:
        with Console(stderr=True).status(name):
            cell = cells.get(name, partial(cells_of, name, parsed))
        rows += rows_of(cell)
        details += cell["entries"]
    return rows, details


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each file, default 15")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="saturation", arguments=arguments))
