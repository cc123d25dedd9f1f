"""Post-training quantization with few bits: what is left of accuracy in ONNX Runtime.

A cell is ``W4A4``: bits of weights and of what layers read, in all layers but the first and last, which have
8, as sums have. ResNet-56 is calibrated on 1,024 unlabelled training images and tested on the 1,000 test
images. EfficientNet-Lite0 is made twice, each time calibrated on one half of the 500 pictures of the ImageNet
sample and tested on the other, or with ``--folds 4`` four times, each time calibrated on three quarters and
tested on the rest; ``--mirror`` adds the mirror image of each calibration image, ``--crops 2``
two random parts of each, some of them mirrored, blown up to the same size. Settings are the library's
defaults, unless ``--iterations``, ``--images``, ``--rate`` or ``--rounding`` say otherwise.

``--held-out 1000`` tests on that many training images that did not calibrate, for development: rows then have
no bars. A network knows its training images by heart, so they are turned by up to ``--turned`` degrees.
``--keep`` names a JSON-lines file of finished cells.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from benchmarks.cells import Cells
from benchmarks.int8 import CHUNK, Case, efficientnet_lite0, resnet56
from benchmarks.rows import Row, benchmark_main
from gracile import export, measure, quantize
from gracile.data import load_data
from gracile.errors import UsageError
from gracile.observe.batches import DatasetBatches

CALIBRATION = 1024
SCALE = (0.35, 1.0)  # of a crop's area
MUST = {
    "resnet56": {
        "W8A8": ">= 92.4",
        "W4A8": ">= 92.2",
        "W3A8": ">= 91.5",
        "W2A8": ">= 88",
        "W4A4": ">= 91",
        "W4A6": ">= 92.2",
    },
    "efficientnet_lite0": {"W8A8": "<= 0.5", "W4A8": "<= 1.5", "W4A4": "<= 8"},
}
"""Accuracy in percent; for EfficientNet-Lite0 points lost."""


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every cell of every model."""
    if parsed.crops < 0:
        raise UsageError("--crops", wanted="at least 0", found=str(parsed.crops))
    cells = Cells(parsed.keep)
    entries = []
    for model in parsed.models:
        load = partial(case_of, model, parsed)
        for name in parsed.cells or MUST[model]:
            parted(name)
            key = f"{model} {name} {settings_of(parsed)}"
            entries.append(cells.get(key, partial(quantized, model, name, load, parsed)))
    show(entries)
    return [row(entry, bars=not parsed.held_out) for entry in entries], entries


def parted(name: str) -> tuple[int, int]:
    """Bits of weights and of activations."""
    found = re.fullmatch(r"W([2-8])A([2-8])", name)
    if found is None:
        raise UsageError("--cells", wanted="W4A8 and the like, 2 to 8 bits", found=name)
    return int(found[1]), int(found[2])


def settings_of(parsed: argparse.Namespace) -> str:
    """What besides its name makes a cell."""
    names = ("rounding", "iterations", "images", "rate", "held_out", "seed", "mirror", "crops", "folds")
    chosen = {name: getattr(parsed, name, None) for name in names}
    return ", ".join(f"{key} {value}" for key, value in chosen.items() if value)


def case_of(model: str, parsed: argparse.Namespace) -> Case:
    """The model with its images."""
    if model == "efficientnet_lite0":
        if parsed.held_out:
            raise UsageError("--held-out", wanted="resnet56", found=model, do="Its sample is all there is.")
        case = efficientnet_lite0(parsed.data_root)
        return case if parsed.folds is None else refolded(case, parsed.folds)
    if parsed.folds is not None:
        raise UsageError("--folds", wanted="efficientnet_lite0", found=model, do="Name it by --models.")
    case = resnet56(parsed.data_root, CALIBRATION)
    if not parsed.held_out:
        return case
    images, labels = load_data("cifar10", parsed.data_root).labelled(CALIBRATION + parsed.held_out)
    others = TensorDataset(turned(images[CALIBRATION:], parsed.turned), labels[CALIBRATION:])
    pairs: Any = others
    return replace(case, folds=((images[:CALIBRATION], DatasetBatches(pairs)),))


def refolded(case: Case, count: int) -> Case:
    """The same pictures in ``count`` folds: each is tested once, after calibration on all other folds."""
    pairs = [pair for _, test in case.folds for pair in test.batches(CHUNK)]
    images, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
    if not 2 <= count <= len(images):
        raise UsageError("--folds", wanted=f"2 to {len(images)}", found=str(count))
    place = torch.arange(len(images)) % count
    tests = [TensorDataset(images[place == i], labels[place == i]) for i in range(count)]
    return replace(case, folds=tuple((images[place != i], DatasetBatches(tests[i])) for i in range(count)))


def varied(images: Tensor, *, mirror: bool, crops: int) -> Tensor:
    """The images, with mirror images and random parts of them at the same size; the same ones every time.

    Example:
        >>> varied(torch.rand(2, 3, 8, 8), mirror=True, crops=3).shape
        torch.Size([10, 3, 8, 8])
    """
    part = v2.Compose([
        v2.RandomResizedCrop(list(images.shape[-2:]), scale=SCALE, antialias=True), v2.RandomHorizontalFlip(),
    ])  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [torch.stack([part(image) for image in images]) for _ in range(crops)]
    return torch.cat([images, *([images.flip(-1)] if mirror else []), *parts])


def turned(images: Tensor, degrees: float) -> Tensor:
    """Each image turned by a random angle up to ``degrees`` either way; the same ones every time."""
    chance = torch.rand(len(images), generator=torch.Generator().manual_seed(0))
    angle = torch.deg2rad((2 * chance - 1) * degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    places = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, places, padding_mode="reflection", align_corners=False)


def scheme_of(name: str, parsed: argparse.Namespace, progress: Callable[[int, int], None]) -> quantize.Scheme:
    """The defaults, with what the command line changes."""
    weights, activations = parted(name)
    rounding: quantize.Rounding | None = None
    if parsed.rounding not in (None, "blocks"):
        rounding = quantize.ROUNDINGS[parsed.rounding]()
    elif (weights, activations) != (8, 8):
        chosen = {key: getattr(parsed, key) for key in ("iterations", "images", "rate")}
        chosen = {key: value for key, value in chosen.items() if value is not None}
        rounding = quantize.Blocks(seed=parsed.seed, progress=progress, **chosen)
    return quantize.Scheme(weight_bits=weights, activation_bits=activations, rounding=rounding)


def quantized(model: str, name: str, load: Callable[[], Case], parsed: argparse.Namespace) -> dict[str, Any]:
    """Quantize, export and test one cell."""
    case = load()
    pairs, seconds, integer = [], 0.0, True
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        for number, (images, test) in enumerate(case.folds):
            task = bar.add_task(f"{model} {name}, fold {number + 1} of {len(case.folds)}")
            files = [Path(folder) / f"{kind}{number}.onnx" for kind in ("float", "quantized")]
            images = varied(images, mirror=parsed.mirror, crops=parsed.crops)
            scheme = scheme_of(
                name, parsed, lambda done, of, task=task: bar.update(task, completed=done, total=of)
            )  # type: ignore[misc]
            start = time.perf_counter()
            result = quantize.ptq(case.model, (images[:1],), images.split(CHUNK), scheme)
            seconds += time.perf_counter() - start
            export.onnx(case.model, (images[:1],), files[0])
            export.onnx(result, (images[:1],), files[1])
            integer &= all(k["integer"] for k in export.kernels(files[1]) if k["bits"] is not None)
            before, labels = measure.predictions(measure.ort_runner(files[0]), test, 50)
            after, _ = measure.predictions(measure.ort_runner(files[1]), test, 50)
            pairs.append((before, after, labels))
    before, after, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    found = asdict(measure.compare(before, after, labels))
    return {
        "model": model,
        "bits": name,
        "float": percent_right(before, labels),
        "accuracy": percent_right(after, labels),
        "seconds": seconds / len(case.folds),
        "every_layer_in_integers": integer,
        "settings": settings_of(parsed),
        **found,
    }


def percent_right(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy."""
    return 100.0 * float((np.asarray(predictions) == np.asarray(labels)).mean())


def row(entry: dict[str, Any], bars: bool) -> Row:
    """The figure that has the bar: accuracy of ResNet-56, points lost of EfficientNet-Lite0."""
    model, name = entry["model"], entry["bits"]
    must = MUST[model].get(name, "") if bars else ""
    if model == "resnet56":
        low, high = (entry["float"] + entry[key] for key in ("low", "high"))
        return Row(
            id=f"ptq.{model}.{name}.accuracy",
            value=entry["accuracy"],
            unit="%",
            n=entry["n"],
            spread=(low, high),
            must=must,
        )
    return Row(
        id=f"ptq.{model}.{name}.points_lost",
        value=-entry["difference"],
        unit="points",
        n=entry["n"],
        spread=(-entry["high"], -entry["low"]),
        must=must,
    )


def show(entries: list[dict[str, Any]]) -> None:
    """Print every cell."""
    table = Table("model", "bits", "float, %", "quantized, %", "same predictions, %", "integers", "seconds")
    for e in entries:
        figures = [f"{e[key]:.1f}" for key in ("float", "accuracy", "agreement")]
        integers = "all" if e["every_layer_in_integers"] else "NOT ALL"
        table.add_row(e["model"], e["bits"], *figures, integers, f"{e['seconds']:.0f}")
    Console(stderr=True).print(table)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--models", nargs="+", choices=MUST, default=list(MUST))
    parser.add_argument("--cells", nargs="+", help="such as W4A4; default, those with bars")
    parser.add_argument("--rounding", choices=quantize.ROUNDINGS, help="default: the library's")
    parser.add_argument("--iterations", type=int, help="of block reconstruction")
    parser.add_argument("--images", type=int, help="that block reconstruction uses")
    parser.add_argument("--rate", type=float, help="of block reconstruction")
    parser.add_argument("--seed", type=int, default=0, help="of block reconstruction")
    parser.add_argument("--mirror", action="store_true", help="calibrate on mirror images too")
    parser.add_argument("--crops", type=int, default=0, help="calibrate on so many parts of each image too")
    parser.add_argument("--folds", type=int, help="of the ImageNet sample; default its two halves")
    parser.add_argument("--held-out", type=int, default=0, help="test on so many training images")
    parser.add_argument("--turned", type=float, default=25.0, help="degrees, of images held out")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="ptq", arguments=arguments))
