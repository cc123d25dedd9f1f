"""Folding batch norm over many classifiers: what is left, why, and what other tools leave.

Every model runs in a process of its own, with random weights and random statistics, one thread. Beside ours:
``torch.fx.experimental.optimization.fuse``, which knows PyTorch's own classes only, and ONNX Runtime's
extended optimisations of the file that PyTorch's exporter writes and optimises first. Without that first pass
ONNX Runtime folds nothing: the file computes the norms' numbers from shapes. Where norms work on the batch at
hand, ours are fused after folding too, which makes standardised weights constants, as ONNX Runtime does; what
is left after that stands in a column of its own. Errors are shares of the largest output in float32; where
one is above 1e-4, the same in float64 counts, and how far the unfolded model in float32 is from it is said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.cells import Cells
from benchmarks.rows import Row, benchmark_main
from benchmarks.zoo_models import SPECS

LIMIT_S = 540
CLOSE = 1e-4  # of the largest output


def randomise_(model: Any, seed: int = 0) -> None:
    """Give every batch norm statistics, scales and shifts that show a mistake, and zero weights values.

    Classifiers that start at zero would hide every mistake.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.normal_(0, 0.3, generator=draw)
            module.running_var.uniform_(0.5, 2.0, generator=draw)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=draw)
                module.bias.data.normal_(0, 0.3, generator=draw)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.data.normal_(0, 0.02, generator=draw)


def fold_model(spec: str) -> dict[str, Any]:
    """Fold one model with all three tools."""
    import torch

    from gracile import fold, graph, zoo

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = zoo.load_model(spec).eval()
    randomise_(model)
    inputs = (torch.randn(1, *(zoo.input_shape(spec) or (3, 224, 224))),)
    before = norms_in(graph.capture(model, inputs))
    plan = fold.plan(model, inputs)
    folded = fold.apply(model, plan).eval()
    left = norms_in(graph.capture(folded, inputs))
    fused = {}
    if any("by the batch at hand" in skip.why for skip in plan.skipped):
        folded = fold.apply_fusions(folded, fold.plan_fusions(folded, inputs)).eval()
        fused = {"left_fused": norms_in(graph.capture(folded, inputs))}
    fresh = torch.randn(2, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = model(fresh), folded(fresh)
    error = distance(found, wanted)
    return {
        "norms": before,
        "pairs": len(plan.pairs),
        "moves": sum(isinstance(model.get_submodule(m.norm), _batch_norm()) for m in plan.moves),
        "maps": sum(any(part.space for part in move.parts) for move in plan.moves),
        "left": left,
        **fused,
        "error": error,
        **({} if error <= CLOSE else in_double(model, folded, fresh)),
        "why": {skip.where: skip.why for skip in plan.skipped},
        **_tried("torch", lambda: left_by_torch(model)),
        **_tried("ort", lambda: left_by_ort(model, inputs)),
    }


def distance(found: Any, wanted: Any) -> float:
    """The largest difference, as a share of the largest output."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def in_double(model: Any, folded: Any, images: Any) -> dict[str, float]:
    """The same in float64, and how far the model's own outputs in float32 are from those."""
    import copy

    import torch

    with torch.no_grad():
        wanted = copy.deepcopy(model).double()(images.double())
        found = copy.deepcopy(folded).double()(images.double())
        return {"error_double": distance(found, wanted), "own_noise": distance(model(images), wanted)}


def _batch_norm() -> Any:
    import torch

    return torch.nn.modules.batchnorm._BatchNorm


def norms_in(captured: Any) -> int:
    """Batch norms among the operations of a captured model."""
    from gracile.graph.rules import packet

    return sum(n.op == "call_function" and packet(n) == "batch_norm" for n in captured.graph.nodes)


def _tried(name: str, count: Callable[[], int]) -> dict[str, Any]:
    try:
        return {name: count()}
    except Exception as error:  # whatever another tool raises is its result
        return {f"{name}_error": f"{type(error).__name__}: {error}".splitlines()[0][:160]}


def left_by_torch(model: Any) -> int:
    """Batch norms that PyTorch's own fusion leaves."""
    from torch.fx.experimental import optimization

    fused = optimization.fuse(model)
    held = dict(fused.named_modules())
    calls = [n for n in fused.graph.nodes if n.op == "call_module"]
    functions = [n for n in fused.graph.nodes if n.op == "call_function"]
    batch_norms = sum(isinstance(held[str(n.target)], _batch_norm()) for n in calls)
    return batch_norms + sum("batch_norm" in getattr(n.target, "__name__", "") for n in functions)


def left_by_ort(model: Any, inputs: Any) -> int:
    """``BatchNormalization`` nodes in the file that ONNX Runtime has optimised."""
    import onnx
    import onnxruntime
    import torch

    with tempfile.TemporaryDirectory() as folder:
        plain, better = Path(folder) / "model.onnx", Path(folder) / "better.onnx"
        torch.onnx.export(model, inputs, plain, dynamo=True, optimize=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(better)
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(better, load_external_data=False).graph.node
    return sum(node.op_type == "BatchNormalization" for node in nodes)


def one(spec: str) -> dict[str, Any]:
    """One model in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.folding", "--one", spec]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LIMIT_S} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}


def rows_of(entries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The figures that are asked for; of models with batch norms."""
    good = [e for e in entries if "failed" not in e]
    normed = [e for e in good if e["norms"]]
    n = len(normed)
    unexplained = sum(e["left"] != len(e["why"]) for e in good)
    rows = [
        Row(id="folding.models", value=len(good), unit="models", n=len(entries), must=f">= {len(entries)}"),
        Row(
            id="folding.error.largest",
            value=max((e.get("error_double", e["error"]) for e in good), default=None),
            unit="of the largest output",
            n=len(good),
            must=f"<= {CLOSE}",
        ),
        Row(id="folding.norms_left_without_reason", value=unexplained, unit="models", n=n, must="<= 0"),
        Row(
            id="folding.norms_folded",
            value=sum(e["pairs"] + e["moves"] for e in normed),
            unit=f"of {sum(e['norms'] for e in normed):,}",
            n=n,
            must=">= 1",
        ),
    ]
    for tool in ("torch", "ort"):
        both = [e for e in normed if tool in e]
        more = sum(_least(e) - e[tool] for e in both)
        worse = sum(_least(e) > e[tool] for e in both)
        rows += [
            Row(id=f"folding.left_beyond.{tool}", value=more, unit="norms", n=len(both), must="< 0"),
            Row(id=f"folding.models_behind.{tool}", value=worse, unit="models", n=len(both), must="<= 0"),
        ]
    return rows


def _least(entry: Mapping[str, Any]) -> int:
    """Norms that are left in the end."""
    return int(entry.get("left_fused", entry["left"]))


def detail(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the details."""
    if "failed" in entry:
        return {"model": entry["cell"], "norms": None, "why": entry["failed"]}
    reasons: dict[str, list[str]] = {}
    for where, why in entry["why"].items():
        reasons.setdefault(why, []).append(where)
    return {
        "model": entry["cell"],
        "norms": entry["norms"],
        "pairs": entry["pairs"],
        "moves": entry["moves"],
        "with a border map": entry["maps"],
        "left": entry["left"],
        "left after fusing": entry.get("left_fused"),
        "torch fuse leaves": entry.get("torch", entry.get("torch_error")),
        "ONNX Runtime leaves": entry.get("ort", entry.get("ort_error")),
        "error": entry["error"],
        "error in float64": entry.get("error_double"),
        "the model's own in float32": entry.get("own_noise"),
        "why": "; ".join(f"{_names(names)}: {why}" for why, names in reasons.items()),
    }


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, ... {names[-1]} ({len(names)})"


def show(details: Sequence[Mapping[str, Any]]) -> None:
    """Print one line per model."""
    columns = [
        "model",
        "norms",
        "pairs",
        "moves",
        "left",
        "torch fuse leaves",
        "ONNX Runtime leaves",
        "error",
    ]
    table = Table(*columns)
    for entry in details:
        table.add_row(*(str(entry.get(column, ""))[:40] for column in columns))
    Console().print(table)


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Fold every model and print the table."""
    specs = arguments.models.split(",") if arguments.models else list(SPECS)
    cells = Cells(arguments.keep)
    entries = [cells.get(spec, lambda spec=spec: one(spec)) for spec in track(specs, "models")]
    details = [detail(entry) for entry in entries]
    show(details)
    return rows_of(entries), details


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", help="comma-separated specifications; default, the whole list")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep entries, go on after an interrupt")


if __name__ == "__main__":
    if "--one" in sys.argv:
        warnings.simplefilter("ignore")
        print(json.dumps(fold_model(sys.argv[sys.argv.index("--one") + 1])))
        sys.exit(0)
    sys.exit(benchmark_main(run, name="folding", arguments=_arguments))
