"""Int8 in ONNX Runtime: how near to float, how fast beside ONNX Runtime's own quantization.

ResNet-56 is calibrated on 512 unlabelled training images and tested on the 1,000 test images. The ImageNet
sample has no training images, so EfficientNet-Lite0 is made twice, each time calibrated on one half of the
500 pictures and tested on the other: every prediction comes from a model that has not seen the picture.

The reference is ``onnxruntime.quantization.quantize_static`` after its ``quant_pre_process``, on the same
float model and the same calibration images: QDQ, per channel, min-max, and unsigned activations, which it
runs more than twice as fast as its default of signed ones. Both files and the float one are timed in turns.

Quantization itself is timed ``--repeats`` times in turns: ``quantize.ptq``, capture of the model included,
against ``quantize_static``, which starts from a float file that was exported and prepared for it before. The
seconds of all parts of the way from the model in PyTorch to the int8 file stand in the details.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from torch import Tensor, nn

from benchmarks.rows import Row, benchmark_main
from gracile import export, fold, measure, quantize, zoo
from gracile.data import load_data
from gracile.data.load import find_root
from gracile.observe import Batches
from gracile.records import Comparison, Ratio

CALIBRATION = 512
CHUNK = 32  # calibration images at a time


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the data of its folds, and the batch size that is timed."""

    name: str
    model: nn.Module
    folds: tuple[tuple[Tensor, Batches], ...]
    batch: int


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Quantize, test and time both models."""
    rows: list[Row] = []
    details: list[dict[str, Any]] = []
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in (make(parsed.data_root) for name, make in CASES.items() if name in parsed.models):
            with console.status(f"{case.name}: quantizing"):
                files = [make_files(case, i, Path(folder)) for i in range(len(case.folds))]
            with console.status(f"{case.name}: testing"):
                compared = {kind: tested(case, files, kind) for kind in ("ours", "reference")}
            with console.status(f"{case.name}: timing"):
                ratios = timed(case, files[0], parsed.runs)
            with console.status(f"{case.name}: timing quantization"):
                made = quantization_seconds(case, Path(folder), parsed.repeats)
            rows += [*case_rows(case, compared["ours"], ratios, parsed.runs), *quantization_rows(case, made)]
            details += case_details(case, compared, ratios, files[0], made)
    return rows, details


def resnet56(root: Path | None, calibration: int = CALIBRATION) -> Case:
    """ResNet-56 with batch norm folded, on CIFAR-10."""
    cifar = load_data("cifar10", root)
    model = zoo.load_model("gracile:resnet56", weights=weights(root) / "cifar10_resnet56.safetensors")
    folds = ((cifar.calibration(calibration), cifar.test),)
    return Case(name="resnet56", model=folded(model, folds[0][0][:1]), folds=folds, batch=128)


def efficientnet_lite0(root: Path | None) -> Case:
    """EfficientNet-Lite0 with batch norm folded, on the two halves of the ImageNet sample."""
    sample = load_data(
        "images:imagenet_sample",
        root,
        size=224,
        resize=256,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        classes=1000,
        calibration_every=2,
    )
    lite = zoo.load_model(
        "timm:tf_efficientnet_lite0", weights=weights(root) / "imagenet_tf_efficientnet_lite0.safetensors"
    )
    halves = ((images_of(sample.train), sample.test), (images_of(sample.test), sample.train))
    return Case(name="efficientnet_lite0", model=folded(lite, halves[0][0][:1]), folds=halves, batch=32)


CASES = {"resnet56": resnet56, "efficientnet_lite0": efficientnet_lite0}


def weights(root: Path | None) -> Path:
    """Folder of the pretrained weights."""
    return (find_root(root) or Path()) / "weights"


def folded(model: nn.Module, image: Tensor) -> nn.Module:
    """The model with batch norm in its convolutions."""
    return fold.apply(model, fold.plan(model, (image,)))


def images_of(part: Batches) -> Tensor:
    """All images of a part, without their labels."""
    return torch.cat([images for images, _ in part.batches(CHUNK)])


def make_files(case: Case, fold_index: int, folder: Path) -> dict[str, Path]:
    """Float, ours and the reference, calibrated on the same images."""
    files, _ = made_and_timed(case, case.folds[fold_index][0], folder / f"{case.name}_{fold_index}")
    return files


def made_and_timed(case: Case, images: Tensor, stem: Path) -> tuple[dict[str, Path], dict[str, float]]:
    """All files, and the seconds that each part of the work took."""
    inputs, seconds = (images[:1],), {}
    files = {
        kind: stem.with_name(f"{stem.name}_{kind}.onnx")
        for kind in ("float", "prepared", "ours", "reference")
    }
    quantized: list[quantize.QuantizedModel] = []
    for part, work in {
        "export float": lambda: export.onnx(case.model, inputs, files["float"]),
        "prepare": lambda: quant_pre_process(str(files["float"]), str(files["prepared"])),
        "quantize_static": lambda: by_quantize_static(files["prepared"], images, files["reference"]),
        "ptq": lambda: quantized.append(quantize.ptq(case.model, inputs, images.split(CHUNK))),
        "export": lambda: export.onnx(quantized[0], inputs, files["ours"]),
    }.items():
        start = time.perf_counter()
        work()
        seconds[part] = time.perf_counter() - start
    return files, seconds


def by_quantize_static(prepared: Path, images: Tensor, file: Path, *, reduce_range: bool = False) -> None:
    """ONNX Runtime's own quantization of a prepared float file."""
    quantize_static(
        str(prepared),
        str(file),
        Reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=reduce_range,
    )


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Calibration images as ``quantize_static`` asks for them."""

    def __init__(self, images: Tensor) -> None:
        self.batches = iter(images.split(CHUNK))

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, ``None`` after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch.numpy()}


def tested(case: Case, files: list[dict[str, Path]], kind: str) -> Comparison:
    """Predictions of the float files against those of ``kind``, over the test parts of all folds."""
    pairs = []
    for made, (_, test) in zip(files, case.folds, strict=True):
        before, labels = measure.predictions(measure.ort_runner(made["float"]), test, 50)
        after, _ = measure.predictions(measure.ort_runner(made[kind]), test, 50)
        pairs.append((before, after, labels))
    before, after, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return measure.compare(before, after, labels)


def timed(case: Case, files: dict[str, Path], runs: int) -> dict[str, Ratio]:
    """Throughput of our file relative to the reference's and to the float one."""
    shape = tuple(case.folds[0][0].shape[1:])
    ratios = {}
    for kind in ("reference", "float"):
        candidates = [
            measure.Candidate(name=name, runtime="ort", model=files[name]) for name in (kind, "ours")
        ]
        _, found = measure.bench(candidates, inputs=shape, batches=[case.batch], runs=runs)
        ratios[kind] = found[0]
    return ratios


def case_rows(case: Case, ours: Comparison, ratios: dict[str, Ratio], runs: int) -> list[Row]:
    """The figures of one model with their bars."""
    found = [
        Row(
            id=f"int8.{case.name}.points_lost",
            value=-ours.difference,
            unit="points",
            n=ours.n,
            spread=(-ours.high, -ours.low),
            must="<= 0.3",
        ),
        Row(
            id=f"int8.{case.name}.same_predictions", value=ours.agreement, unit="%", n=ours.n, must=">= 98.5"
        ),
        ratio_row(case, "quantize_static", ratios["reference"], runs, ">= 0.97"),
    ]
    if case.name == "resnet56":
        found.append(ratio_row(case, "float", ratios["float"], runs, ">= 2"))
    return found


def quantization_seconds(case: Case, folder: Path, repeats: int) -> list[dict[str, float]]:
    """Seconds of each part of the work; a turn before warms up."""
    turns = [made_and_timed(case, case.folds[0][0], folder / "timed")[1] for _ in range(repeats + 1)]
    return turns[1:]


WHOLE = (("ptq", "export"), ("export float", "prepare", "quantize_static"))


def quantization_rows(case: Case, turns: list[dict[str, float]]) -> list[Row]:
    """Time to quantize relative to ``quantize_static``: the median of paired ratios."""
    ratios = [turn["ptq"] / turn["quantize_static"] for turn in turns]
    value, low, high = measure.median_ci(ratios)
    name = f"int8.{case.name}.quantization_time_over_quantize_static"
    spread = (low, high)
    return [Row(id=name, value=value, unit="x", n=len(turns), spread=spread, must="<= 2")]


def ratio_row(case: Case, name: str, ratio: Ratio, runs: int, must: str) -> Row:
    """Throughput relative to another file."""
    return Row(
        id=f"int8.{case.name}.throughput_over_{name}",
        value=ratio.ratio,
        unit="x",
        n=runs,
        spread=(ratio.low, ratio.high),
        must=must,
    )


def case_details(
    case: Case,
    compared: dict[str, Comparison],
    ratios: dict[str, Ratio],
    files: dict[str, Path],
    made: list[dict[str, float]],
) -> list[dict[str, Any]]:
    """What has no bar: the reference's own figures, sizes, kernels."""
    kernels = export.kernels(files["ours"])
    layers = [row for row in kernels if row["bits"] is not None]
    return [
        {
            "model": case.name,
            "made_by": "gracile" if kind == "ours" else "onnxruntime quantize_static",
            "points_lost": -compared[kind].difference,
            "same_predictions_percent": compared[kind].agreement,
            "n": compared[kind].n,
            "size_bytes": files[kind].stat().st_size,
            "float_size_bytes": files["float"].stat().st_size,
            "batch": case.batch,
            **{f"seconds_{p}": statistics.median(turn[p] for turn in made) for p in WHOLE[kind != "ours"]},
            **(
                {
                    "throughput_over_float": ratios["float"].ratio,
                    "layers": len(layers),
                    "layers_in_integers": sum(row["integer"] for row in layers),
                }
                if kind == "ours"
                else {}
            ),
        }
        for kind in ("ours", "reference")
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=int, default=25, help="timed runs of each file")
    parser.add_argument("--repeats", type=int, default=7, help="times that quantization is timed")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="int8", arguments=arguments))
