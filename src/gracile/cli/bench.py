"""``gracile bench``: how fast models are, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from gracile.errors import UsageError, did_you_mean

from .inspect import parse_options, parse_sizes, sizes_of
from .show import console, error_console, ratio_table, speed_table

if TYPE_CHECKING:
    from gracile.measure import Candidate

_RUNTIMES = ("torch", "ort", "openvino")


def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL_OR_ONNX...", help="ONNX files, or models as in `inspect`.")
    ],
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,32,128",
    runtime: Annotated[str, typer.Option(help="torch (models), ort, openvino; with commas.")] = "torch,ort",
    runs: Annotated[int, typer.Option(min=6, help="Timed runs of each, in turns.")] = 15,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores when not given.")] = None,
    shape: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Shape of one input; guessed where known.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Argument of constructors.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure throughput and latency: interleaved runs, medians, 95 % intervals, paired ratios.

    Models run in PyTorch and, exported, in the other runtimes; the first is what the others are compared to.
    """
    from gracile import measure

    batches = [_positive("--batch", part) for part in batch.split(",")]
    runtimes = [part.strip() for part in runtime.split(",")]
    for name in runtimes:
        if name not in _RUNTIMES:
            do = did_you_mean(name, _RUNTIMES)
            raise UsageError("--runtime", wanted="torch, ort or openvino", found=repr(name), do=do)
    with (
        TemporaryDirectory(prefix="gracile-bench-") as folder,
        Progress(console=error_console(), transient=True, disable=as_json) as progress,
    ):
        chosen = parse_options(options or [])
        candidates, sizes = _candidates(models, runtimes, batches, shape, chosen, Path(folder))
        task = progress.add_task("timing", total=None)
        speeds, ratios = measure.bench(
            candidates,
            inputs=sizes,
            batches=batches,
            runs=runs,
            threads=threads,
            on_run=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        found = {"speeds": [asdict(speed) for speed in speeds], "ratios": [asdict(ratio) for ratio in ratios]}
        typer.echo(
            json.dumps(found | {"hardware": measure.hardware(), "versions": measure.versions()}, indent=2)
        )
        return
    console().print(speed_table(speeds))
    console().print()
    console().print(ratio_table(ratios))
    for ratio in ratios:
        if ratio.warning:
            console().print(f"! {ratio.warning}", style="yellow")


def _candidates(
    models: list[str],
    runtimes: list[str],
    batches: list[int],
    shape: str | None,
    options: dict[str, Any],
    folder: Path,
) -> tuple[list[Candidate], tuple[int, ...]]:
    """What to time, and the shape of one input; models are exported into ``folder``."""
    from gracile import export, measure, zoo

    found: list[Candidate] = []
    shapes: dict[tuple[int, ...], str] = {}
    files = [one for one in runtimes if one != "torch"]
    for position, name in enumerate(models):
        if name.endswith(".onnx"):
            if not files:
                do = "Add ort or openvino to --runtime."
                told = f"torch only, for {name}"
                raise UsageError("--runtime", wanted="a runtime for ONNX files", found=told, do=do)
            path, sizes = Path(name), onnx_sizes(Path(name), shape, batches)
        else:
            model = zoo.load_model(name, options=options)
            sizes, path = sizes_of(name, model, shape), folder / f"{position}.onnx"
            if "torch" in runtimes:
                found.append(measure.Candidate(name=name, runtime="torch", model=model))
            if files:
                export.onnx(model, zoo.example_inputs(sizes), path)
        shapes.setdefault(tuple(sizes), name)
        found += [measure.Candidate(name=name, runtime=one, model=path) for one in files]
    if len(shapes) > 1:
        told = ", ".join(f"{'x'.join(map(str, sizes))} ({name})" for sizes, name in shapes.items())
        raise UsageError("models", wanted="inputs of one shape", found=told, do="Time them one by one.")
    return found, next(iter(shapes))


def onnx_sizes(path: Path, shape: str | None, batches: list[int]) -> tuple[int, ...]:
    """Shape of one input of an ONNX file: what ``--input`` says, else what the file tells.

    Raises:
        UsageError: No such file, not an ONNX file, neither tells, or the file takes another batch.
    """
    axes = _input_axes(path)
    if axes and axes[0] > 0 and batches != [axes[0]]:
        do = f"Give --batch {axes[0]}, or export the model with an open batch size."
        told = f"{axes[0]} always"
        raise UsageError(str(path), wanted=f"batches of {', '.join(map(str, batches))}", found=told, do=do)
    if shape:
        return parse_sizes(shape)
    if len(axes) < 2 or min(axes[1:]) < 1:
        do = "Give it with --input, such as --input 3,224,224."
        raise UsageError(str(path), wanted="a file that tells its input's shape", found=str(axes), do=do)
    return tuple(axes[1:])


def _input_axes(path: Path) -> list[int]:
    """Sizes of the first input, batch first, 0 where the file leaves one open."""
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's own errors share no class with OSError
        found = getattr(error, "strerror", None) or "another kind of file"
        raise UsageError(str(path), wanted="an ONNX file", found=found) from error
    weights = {tensor.name for tensor in graph.initializer}
    first = next((value for value in graph.input if value.name not in weights), None)
    return [] if first is None else [axis.dim_value for axis in first.type.tensor_type.shape.dim]


def _positive(option: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(option, wanted="whole numbers from 1", found=repr(text))
    return int(text)
