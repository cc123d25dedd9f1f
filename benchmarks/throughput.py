"""Speed by measurement: examples a second against channel sparsity and batch, with 95 % intervals.

Every network is thinned by whole channels (L1, the same share of every group; the trunk of a residual
network stays whole) and timed beside its original, taking turns. On a GPU, when torch sees one, also: batches
one at a time with a wait after each (synchronous), batches queued (asynchronous), and CUDA events around the
transfers and around the kernels. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cells import Cells
from benchmarks.figure import write_svg
from benchmarks.rows import Row, benchmark_main
from benchmarks.theory import chosen
from gracile import export, graph, measure, prune, zoo
from gracile.report.charts import Series

NETS = ("vgg19", "resnet56", "sad", "lid")
SPARSITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
BATCHES = {"vgg19": (1, 64, 256), "resnet56": (1, 64, 256), "sad": (1, 128, 512), "lid": (1, 32)}


def thinned(name: str, sparsity: float) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network without that share of its channels, and one example."""
    torch.manual_seed(0)
    model = zoo.load_model(f"gracile:{name}")
    inputs = (torch.zeros(1, *(zoo.input_shape(model) or ())),)
    if not sparsity:
        return model, inputs
    provenance = graph.trace(graph.capture(model, inputs))
    free = {g.name for g in chosen(provenance, trunk=False)}
    trunk = tuple(g.name for g in provenance.groups if g.name not in free)
    plan = prune.plan(model, inputs, budget=prune.PerLayer(ratio=sparsity), leave=trunk)
    return prune.apply(model, plan, inputs=inputs, carry_constants=False).eval(), inputs


def on_cpu(name: str, runtime: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All sparsities of one network side by side."""
    with tempfile.TemporaryDirectory() as folder:
        candidates = []
        for sparsity in arguments.sparsities:
            model, inputs = thinned(name, sparsity)
            file = Path(folder) / f"{sparsity}.onnx"
            if runtime != "torch":
                export.onnx(model, inputs, file)
            target = model if runtime == "torch" else file
            candidates.append(measure.Candidate(name=f"{sparsity:g}", runtime=runtime, model=target))
        speeds, ratios = measure.bench(candidates, inputs=inputs[0].shape[1:], batches=[batch],
                                       runs=arguments.runs, threads=arguments.threads)  # fmt: skip
    found = [(1.0, 1.0, 1.0), *((r.ratio, r.low, r.high) for r in ratios)]
    return {
        "net": name, "device": "cpu", "runtime": runtime, "batch": batch, "sparsities": arguments.sparsities,
        "per_s": [[s.images_per_s, s.images_per_s_low, s.images_per_s_high] for s in speeds],
        "speedup": [list(three) for three in found],
    }  # fmt: skip


def on_gpu(name: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Synchronous and asynchronous throughput; milliseconds of transfers and of kernels."""
    found: dict[str, list[list[float]]] = {
        "synchronous": [],
        "asynchronous": [],
        "transfer": [],
        "kernel": [],
    }
    for sparsity in arguments.sparsities:
        model, inputs = thinned(name, sparsity)
        images = torch.randn(batch, *inputs[0].shape[1:]).pin_memory()
        model = model.cuda()
        with torch.inference_mode():
            for kind, values in gpu_times(model, images, arguments.runs).items():
                found[kind].append(list(measure.median_ci(values)))
    return {"net": name, "device": torch.cuda.get_device_name(), "runtime": "torch", "batch": batch,
            "sparsities": arguments.sparsities, **found}  # fmt: skip


def gpu_times(model: nn.Module, images: Tensor, runs: int, queued: int = 20) -> dict[str, list[float]]:
    """One number a run: examples a second waited for, and queued; milliseconds of transfer and of kernels."""
    found: dict[str, list[float]] = {"synchronous": [], "asynchronous": [], "transfer": [], "kernel": []}

    def once() -> Tensor:
        return model(images.to("cuda", non_blocking=True)).to("cpu", non_blocking=True)  # type: ignore[no-any-return]

    for _ in range(5):  # clocks, allocator, choice of kernels
        once()
    torch.cuda.synchronize()
    for _ in range(runs):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        start = time.perf_counter()
        marks[0].record()
        there = images.to("cuda", non_blocking=True)
        marks[1].record()
        logits = model(there)
        marks[2].record()
        logits.to("cpu", non_blocking=True)
        marks[3].record()
        torch.cuda.synchronize()
        found["synchronous"].append(len(images) / (time.perf_counter() - start))
        found["kernel"].append(marks[1].elapsed_time(marks[2]))
        found["transfer"].append(marks[0].elapsed_time(marks[1]) + marks[2].elapsed_time(marks[3]))
        start = time.perf_counter()
        for _ in range(queued):
            once()
        torch.cuda.synchronize()
        found["asynchronous"].append(queued * len(images) / (time.perf_counter() - start))
    return found


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """The documents' factors on a processor, at the best batch and runtime that was timed."""
    rows = []
    for net, sparsity, must in (("vgg19", 0.6, ">= 3"), ("lid", 0.9, "> 1"), ("sad", 0.8, "> 1")):
        found = [
            e["speedup"][e["sparsities"].index(sparsity)]
            for e in entries
            if e["net"] == net and e["device"] == "cpu" and sparsity in e["sparsities"]
        ]
        if found:
            value, low, high = max(found)
            rows.append(Row(id=f"throughput.{net}.{100 * sparsity:.0f}", value=value, spread=(low, high),
                            unit="x", n=len(found), must=must))  # fmt: skip
    return rows


def show(entries: list[dict[str, Any]]) -> None:
    """Print examples a second with their intervals."""
    table = Table("network", "runtime", "batch", "sparsity", "a second", "95 % interval", "speed-up")
    for e in (e for e in entries if e["device"] == "cpu"):
        for place, sparsity in enumerate(e["sparsities"]):
            middle, low, high = e["per_s"][place]
            table.add_row(e["net"], e["runtime"], str(e["batch"]), f"{sparsity:.0%}", f"{middle:,.0f}",
                          f"{low:,.0f} to {high:,.0f}", f"{e['speedup'][place][0]:.2f}x")  # fmt: skip
    Console().print(table)
    gpu = Table(
        "network on the GPU",
        "batch",
        "sparsity",
        "synchronous/s",
        "asynchronous/s",
        "transfer ms",
        "kernel ms",
    )
    for e in (e for e in entries if e["device"] != "cpu"):
        for place, sparsity in enumerate(e["sparsities"]):
            gpu.add_row(e["net"], str(e["batch"]), f"{sparsity:.0%}",
                        *(f"{e[kind][place][0]:,.3g}" for kind in ("synchronous", "asynchronous", "transfer",
                                                                  "kernel")))  # fmt: skip
    if gpu.row_count:
        Console().print(gpu)


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Time every cell that is not kept yet."""
    cells = Cells(arguments.keep)
    entries = []
    for name in arguments.nets.split(","):
        for batch in arguments.batches or BATCHES[name]:
            for runtime in arguments.runtimes.split(","):
                cell = partial(on_cpu, name, runtime, batch, arguments)
                entries.append(cells.get(f"{name} cpu {runtime} {batch}", cell))
            if torch.cuda.is_available():
                cell = partial(on_gpu, name, batch, arguments)
                entries.append(cells.get(f"{name} {torch.cuda.get_device_name()} {batch}", cell))
    show(entries)
    if arguments.figure:
        drawn = [e for e in entries if e["device"] == "cpu" and e["runtime"] == "ort"] or entries
        series = [
            Series(name=f"{e['net']}, batch {e['batch']}, {e['runtime']}", colour=i % 6,
                   x=[100 * s for s in e["sparsities"]], y=[r[0] for r in e["speedup"]])
            for i, e in enumerate([e for e in drawn if "speedup" in e][:6])
        ]  # fmt: skip
        write_svg(arguments.figure, series, x="channels removed, %", y="times the examples a second")
    return rows_of(entries), entries


def _numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help=f"default {','.join(NETS)}")
    parser.add_argument("--runtimes", default="torch,ort,openvino", help="default torch,ort,openvino")
    parser.add_argument("--sparsities", type=_numbers(float), default=list(SPARSITIES), help="with commas")
    parser.add_argument("--batches", type=_numbers(int), help="with commas; default, by network")
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each, default 15")
    parser.add_argument("--threads", type=int, help="default, all cores")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")
    parser.add_argument("--figure", type=Path, metavar="SVG", help="draw the speed-ups here")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="throughput", arguments=_arguments))
