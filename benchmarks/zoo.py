"""Coverage: capture, prune half of the prunable channels and prove it, over many classifiers.

Every model runs in a process of its own, with fresh random weights and one thread, first through Gracile,
then through Torch-Pruning 1.6.1 as its README says (L1 importance, ratio 0.5, the classifier ignored).
Torch-Pruning is judged by its own standard, whether the pruned model still runs; Gracile by its three proofs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.rows import Row, benchmark_main
from benchmarks.zoo_models import SPECS

TOOLS = ("gracile", "torch-pruning")
LIMIT_S = {"gracile": 420, "torch-pruning": 60}
GONE = 0.30  # share of the parameters that must really be gone for a model to count as pruned


def prune_with_gracile(spec: str) -> dict[str, Any]:
    """Capture, trace, plan, apply and prove one model; seconds of each."""
    import torch

    from gracile import graph, prune, surgery, zoo

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = zoo.load_model(spec).eval()
    inputs = (torch.randn(1, *(zoo.input_shape(spec) or (3, 224, 224))),)
    clock = [time.perf_counter()]
    captured = graph.capture(model, inputs)
    clock.append(time.perf_counter())
    provenance = graph.trace(captured)
    clock.append(time.perf_counter())
    found: dict[str, Any] = {"captured": True, "groups": len(provenance.groups)}
    plan = prune.plan(model, inputs, criterion=prune.L1(), budget=prune.PerLayer(ratio=0.5), leave=())
    small = surgery.apply(model, plan)
    clock.append(time.perf_counter())
    proofs = surgery.verify(model, inputs, plan, provenance=provenance)
    clock.append(time.perf_counter())
    seconds = [b - a for a, b in itertools.pairwise(clock)]
    before = sum(p.numel() for p in model.parameters())
    after = sum(p.numel() for p in small.parameters())
    skipped = {s.where: s.why for s in plan.skipped}
    return found | {
        "capture_s": seconds[0],
        "graph_s": seconds[1],
        "prune_s": seconds[2],
        "verify_s": seconds[3],
        "proofs": [p.passed for p in proofs],
        "errors": [p.error for p in proofs],
        "effects": [p.effect for p in proofs],
        "runs": True,
        "params_gone": 1 - after / before,
        "macs_left": plan.macs_after / plan.macs_before,
        "frozen_groups": len(skipped),
        "frozen": [f"{where}: {why}"[:160] for where, why in list(skipped.items())[:6]],
    }


def prune_with_torch_pruning(spec: str) -> dict[str, Any]:
    """The same model by Torch-Pruning's high-level pruner, as its README shows."""
    import torch
    import torch_pruning
    from torch import nn

    from gracile import zoo

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = zoo.load_model(spec).eval()
    inputs = torch.randn(1, *(zoo.input_shape(spec) or (3, 224, 224)))
    outputs = model(inputs).shape[-1]
    ignored = [
        m
        for m in model.modules()
        if getattr(m, "out_features", None) == outputs
        or (isinstance(m, nn.Conv2d) and m.out_channels == outputs == 1000)
    ]
    before = sum(p.numel() for p in model.parameters())
    start = time.perf_counter()
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=ignored,
    )
    pruner.step()
    seconds = time.perf_counter() - start
    after = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        shape = model(inputs).shape
    return {"runs": shape[-1] == outputs, "prune_s": seconds, "params_gone": 1 - after / before}


WORKERS = {"gracile": prune_with_gracile, "torch-pruning": prune_with_torch_pruning}


def one(tool: str, spec: str) -> dict[str, Any]:
    """Run one tool on one model in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.zoo", "--one", spec, "--tool", tool]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S[tool], check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT_S[tool]} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}


def counts_as_pruned(entry: dict[str, Any]) -> bool:
    """All three proofs pass and at least 30 % of the parameters are really gone."""
    return bool(entry.get("proofs")) and all(entry["proofs"]) and entry["params_gone"] >= GONE


def measure(specs: list[str], tools: tuple[str, ...], jobs: int, keep: Path | None) -> list[dict[str, Any]]:
    """One entry per model; what ``keep`` (a JSON-lines file) already holds is not run again."""
    done: dict[tuple[str, str], dict[str, Any]] = {}
    if keep is not None and keep.exists():
        for line in keep.read_text().splitlines():
            kept = json.loads(line)
            done[kept["tool"], kept["model"]] = kept["result"]

    def run(task: tuple[str, str]) -> None:
        if task not in done:
            done[task] = one(*task)
            if keep is not None:
                line = {"tool": task[0], "model": task[1], "result": done[task]}
                with keep.open("a") as file:
                    file.write(json.dumps(line) + "\n")

    tasks = [(tool, spec) for tool in tools for spec in specs]
    with ThreadPoolExecutor(jobs) as pool:
        list(track(pool.map(run, tasks), "models", total=len(tasks)))
    return [{"model": spec, **{tool: done[tool, spec] for tool in tools}} for spec in specs]


def show(entries: list[dict[str, Any]]) -> None:
    """Print one line per model."""
    table = Table("model", "captured", "graph s", "proofs", "params gone", "frozen", "Torch-Pruning", "gone")
    for entry in entries:
        ours, theirs = entry.get("gracile", {}), entry.get("torch-pruning", {})
        table.add_row(
            entry["model"],
            "yes" if ours.get("captured") else ours.get("error", "no")[:60],
            f"{ours.get('graph_s', float('nan')):.2f}",
            "".join("+" if p else "-" for p in ours.get("proofs", [])),
            f"{ours.get('params_gone', 0):.0%}",
            str(ours.get("frozen_groups", "")),
            "runs" if theirs.get("runs") else theirs.get("error", "fails")[:60],
            f"{theirs.get('params_gone', 0):.0%}" if theirs.get("runs") else "",
        )
    Console().print(table)


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """The figures that the issue asks for."""
    ours = {e["model"]: e["gracile"] for e in entries}
    n = len(entries)
    captured = 100 * sum(bool(o.get("captured")) for o in ours.values()) / n
    pruned = 100 * sum(counts_as_pruned(o) for o in ours.values()) / n
    slowest = max((o.get("graph_s", float("inf")) for o in ours.values()), default=float("inf"))
    rows = [
        Row(id="zoo.models", value=n, unit="models", n=n, must=">= 60"),
        Row(id="zoo.captured", value=captured, unit="%", n=n, must=">= 100"),
        Row(id="zoo.pruned_with_proofs", value=pruned, unit="%", n=n, must=">= 95"),
        Row(id="zoo.graph_seconds.slowest", value=round(slowest, 3), unit="s", n=n, must="<= 30"),
    ]
    resnet = ours.get("torchvision:resnet50", {}).get("graph_s")
    if resnet is not None:
        rows.append(
            Row(id="zoo.graph_seconds.resnet50", value=round(resnet, 3), unit="s", n=1, must="<= 1.5")
        )
    if any("torch-pruning" in e for e in entries):
        theirs = 100 * sum(bool(e.get("torch-pruning", {}).get("runs")) for e in entries) / n
        rows.append(
            Row(
                id="zoo.ahead_of_torch_pruning",
                value=round(pruned - theirs, 2),
                unit="points",
                n=n,
                must="> 0",
            )
        )
    return rows


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Measure every model and print the table."""
    specs = arguments.models.split(",") if arguments.models else list(SPECS)
    tools = TOOLS if not arguments.only_gracile else ("gracile",)
    entries = measure(specs, tools, arguments.jobs, arguments.keep)
    show(entries)
    ran = sum(bool(e.get("torch-pruning", {}).get("runs")) for e in entries)
    Console().print(f"Torch-Pruning: {ran} of {len(entries)} pruned models still run (shapes only).")
    return rows_of(entries), entries


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", help="comma-separated specifications; default, the whole list")
    parser.add_argument("--only-gracile", action="store_true", help="leave the peer out")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep entries, go on after an interrupt")


def _worker(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", required=True)
    parser.add_argument("--tool", choices=TOOLS, required=True)
    parsed = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    print(json.dumps(WORKERS[parsed.tool](parsed.one)))
    return 0


if __name__ == "__main__":
    if "--one" in sys.argv:
        sys.exit(_worker(sys.argv[1:]))
    sys.exit(benchmark_main(run, name="zoo", arguments=_arguments))
