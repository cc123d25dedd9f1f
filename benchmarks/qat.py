"""Quantization-aware training on CIFAR-10: what few bits cost after at most five epochs, in ONNX Runtime.

A cell is ``resnet20:W4A4``: bits of weights and of what layers read, in all layers but the first and last,
which have 8, as sums have. ``T`` for ``W2`` trains ternary weights by the threshold of TWN, not by a learned
step; 1-bit weights are ``-a`` and ``a`` per channel, ``a`` the mean size, and gradients pass straight
(DoReFa-Net; ``--weights xnor`` was worse on held-out images). Weights start from the shared ones; the float
network helps to teach (``--distill 0`` turns that off). ``--sparsity 0.75`` sets three quarters of the
weights to zero beforehand, the smallest of all layers, and keeps them there. The epoch is chosen on a
held-out part of the training images; accuracy is top-1 on the 1,000 test images, by the exported file in ONNX
Runtime, beside the float network's on the same images. Ternary cells also say how many of the deployed
weights are zero and how large the archive is.

``--grid`` makes the documents' table 9, ``W1..6 x A1, 2, 4, 6, 8``. ``--keep`` names a JSON-lines file of
finished cells; beside it lie checkpoints, from which an unfinished cell goes on after its last epoch.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks.cells import Cells
from benchmarks.rows import Row, benchmark_main
from gracile import export, measure, pack, prune, tune, zoo
from gracile.data import DataBundle, load_data
from gracile.errors import UsageError
from gracile.quantize import qat

EPOCHS = 5
MUST = {
    "resnet20:W4A4": "<= 0.8",
    "resnet20:W3A3": "<= 1.8",
    "resnet20:W2A2": "<= 5",
    "resnet20:W2A8": "<= 1.5",
    "resnet20:TA8": "<= 1.5",
    "resnet20:W1A8": "<= 3.5",
    "resnet20:W1A1": "<= 15",
    "resnet56:W4A4": ">= 92",
    "resnet56:W3A6": ">= 92",
    "resnet56:W2A8": ">= 91",
    "resnet56:W1A8": ">= 87",
    "resnet56:TA8": ">= 90.5",
}
"""Points lost by ResNet-20; accuracy of ResNet-56 in percent."""
SMALLER = 25  # times that the archive of a ternary ResNet-56 is smaller than the float file
GRID = tuple(f"resnet56:W{w}A{a}" for w in range(1, 7) for a in (1, 2, 4, 6, 8))
CALIBRATION, CHUNK = 512, 64


def parted(cell: str) -> tuple[str, int, int, bool]:
    """Network, bits of weights and activations, whether weights are ternary by threshold."""
    found = re.fullmatch(r"(resnet20|resnet56):(?:W([1-8])|(T))A([1-8])", cell)
    if found is None:
        raise UsageError("--cells", wanted="resnet20:W4A4, resnet56:TA8 and the like", found=cell)
    return found[1], int(found[2] or 2), int(found[4]), found[3] is not None


def scheme_of(cell: str, parsed: argparse.Namespace) -> qat.QatScheme:
    """Bits and techniques of a cell."""
    _, weights, activations, ternary = parted(cell)
    technique = parsed.weights or ("twn" if ternary else "dorefa" if weights == 1 else "lsq")
    return qat.QatScheme(
        weight_bits=weights,
        activation_bits=activations,
        weights=technique,
        activations=parsed.activations,
        batch_norm=parsed.batch_norm,
    )


def settings_of(parsed: argparse.Namespace) -> str:
    """What besides its name makes a cell."""
    names = ("epochs", "lr", "distill", "weights", "activations", "batch_norm", "freeze_norms", "decay",
             "seed", "train_images", "sparsity")  # fmt: skip
    told = [f"{name} {getattr(parsed, name)}" for name in names if getattr(parsed, name) is not None]
    return ", ".join([*told, *(["compiled"] if parsed.compile else [])])


def trained(
    cell: str, bundle: DataBundle, parsed: argparse.Namespace, checkpoint: Path | None
) -> dict[str, Any]:
    """Train, convert, export and test one cell."""
    network = parted(cell)[0]
    weights = Path(parsed.data_root) / "weights" / f"cifar10_{network}.safetensors"
    load = partial(zoo.load_model, f"gracile:{network}", weights=weights)
    images = bundle.calibration(CALIBRATION, parsed.seed)
    inputs = (images[:1],)
    start, masks = load().eval(), None
    if parsed.sparsity:
        masks = prune.mask_plan(start, inputs, sparsity=parsed.sparsity, scope="global")
        prune.apply_masks_(start, masks)
    model = qat.prepare(start, inputs, images.split(CHUNK), scheme_of(cell, parsed))
    config = tune.TuneConfig(
        epochs=parsed.epochs, lr=parsed.lr, seed=parsed.seed, augment=True, weight_decay=parsed.decay,
        warmup_epochs=0.1, bf16=False if parsed.float32 else None,
        compile="inductor" if parsed.compile else None,
    )  # fmt: skip
    loss = (
        tune.Distillation(load().eval(), weight=parsed.distill, bf16=config.bf16) if parsed.distill else None
    )
    examples = bundle.train.subset(range(parsed.train_images)) if parsed.train_images else bundle.train
    hooks: list[tune.Hook] = [qat.Phases(qat.Plan(epochs=parsed.epochs, freeze_norms=parsed.freeze_norms))]
    if masks is not None:
        hooks.append(prune.Masks(model.named_as_here(masks)))
    with Progress(console=Console(stderr=True), transient=True) as bars:
        history = tune.fit(
            model, examples, config, loss=loss, hooks=hooks, checkpoint=checkpoint, progress=bars
        )
    found = tested(load().eval(), model.eval(), bundle, inputs)
    return found | {
        "network": network,
        "name": cell,
        "seed": parsed.seed,
        "settings": settings_of(parsed),
        "best_epoch": history.best_epoch,
        "seconds": history.seconds,
        "epochs": [asdict(epoch) for epoch in history.epochs],
    }


def tested(
    original: nn.Module, model: qat.QatModel, bundle: DataBundle, inputs: tuple[torch.Tensor, ...]
) -> dict[str, Any]:
    """Accuracy in ONNX Runtime beside the float network's, and bytes on disk."""
    quantized = model.convert()
    with tempfile.TemporaryDirectory() as folder:
        file, archive, plain = (Path(folder) / n for n in ("m.onnx", "m.gracile", "m.safetensors"))
        export.onnx(quantized, inputs, file)
        integer = all(k["integer"] for k in export.kernels(file) if k["bits"] is not None)
        after, labels = measure.predictions(measure.ort_runner(file), bundle.test, 100)
        simulated, _ = measure.predictions(model, bundle.test, 100)
        small = pack.save(quantized, archive, inputs).size_bytes
        safetensors.torch.save_file(
            {name: tensor.clone() for name, tensor in original.state_dict().items()}, plain
        )
        whole = plain.stat().st_size
    before, _ = measure.predictions(original, bundle.test, 100)
    compared = asdict(measure.compare(before, after, labels))
    shares = qat.zeros(model)
    sizes = {name: layer.weight.numel() for name, layer in model.layers.items()}
    return compared | {
        "float": measure.accuracy(before, labels).percent,
        "accuracy": measure.accuracy(after, labels).percent,
        "simulated": measure.accuracy(simulated, labels).percent,
        "every_layer_in_integers": integer,
        "zeros_percent": 100 * sum(shares[n] * sizes[n] for n in sizes) / sum(sizes.values()),
        "bytes": small,
        "float_bytes": whole,
    }


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Make every cell that is not finished yet."""
    if parsed.epochs < 1:
        raise UsageError("--epochs", wanted="at least 1", found=str(parsed.epochs))
    bundle = load_data("cifar10", parsed.data_root)
    names = list(GRID) if parsed.grid else parsed.cells
    for name in names:
        parted(name)
    cells, entries = Cells(parsed.keep), []
    for name in names:
        key = f"{name} {settings_of(parsed)}"
        checkpoint = None
        if parsed.keep is not None:
            file = re.sub(r"[^\w.=-]+", "_", key)
            checkpoint = parsed.keep.with_suffix(".checkpoints") / f"{file}.safetensors"
        make: Callable[[], dict[str, Any]] = partial(trained, name, bundle, parsed, checkpoint)
        entries.append(cells.get(key, make))
    show(entries)
    return [row for entry in entries for row in rows_of(entry, parsed)], entries


def rows_of(entry: dict[str, Any], parsed: argparse.Namespace) -> list[Row]:
    """Points lost or accuracy; for a ternary ResNet-56 its bytes too."""
    name = entry["name"]
    allowed = parsed.epochs <= EPOCHS and not parsed.train_images
    must = MUST.get(name, "") if allowed else ""
    label = f"qat.{name.replace(':', '.')}"
    if entry["network"] == "resnet20":
        spread = (-entry["high"], -entry["low"])
        return [Row(id=f"{label}.points_lost", value=-entry["difference"], unit="points", n=entry["n"],
                    spread=spread, must=must)]  # fmt: skip
    spread = (entry["float"] + entry["low"], entry["float"] + entry["high"])
    rows = [Row(id=f"{label}.accuracy", value=entry["accuracy"], unit="%", n=entry["n"], spread=spread,
                must=must)]  # fmt: skip
    if parted(name)[3]:
        rows.append(Row(id=f"{label}.zeros", value=entry["zeros_percent"], unit="%", n=1))
        rows.append(Row(id=f"{label}.times_smaller", value=entry["float_bytes"] / entry["bytes"], unit="x",
                        n=1, must=f">= {SMALLER}" if allowed else ""))  # fmt: skip
    return rows


def show(entries: list[dict[str, Any]]) -> None:
    """Print every cell."""
    table = Table("cell", "float, %", "quantized, %", "lost", "integers", "zeros, %", "bytes", "minutes")
    for e in entries:
        integers = "all" if e["every_layer_in_integers"] else "NOT ALL"
        table.add_row(e["name"], f"{e['float']:.1f}", f"{e['accuracy']:.1f}", f"{-e['difference']:.1f}",
                      integers, f"{e['zeros_percent']:.0f}", f"{e['bytes']:,}",
                      f"{e['seconds'] / 60:.0f}")  # fmt: skip
    Console().print(table)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    add = parser.add_argument
    add("--cells", nargs="+", default=list(MUST), help="default: all that have a bar")
    add("--grid", action="store_true", help="the documents' table 9 on ResNet-56")
    add("--epochs", type=int, default=EPOCHS, help=f"default {EPOCHS}")
    add("--lr", type=float, default=0.01, help="highest learning rate, default 0.01")
    add("--distill", type=float, default=0.5, help="weight of the float network, default 0.5")
    add("--decay", type=float, default=1e-4, help="of weights, default 1e-4")
    add("--weights", choices=sorted(qat.WEIGHT_QUANTIZERS), help="technique; default as told above")
    add("--activations", choices=sorted(qat.ACTIVATION_QUANTIZERS), default="lsq")
    add("--batch-norm", choices=sorted(qat.SCHEMES_OF_BN), default="plain")
    add("--freeze-norms", type=int, default=0, help="last epochs whose statistics are held, default 0")
    add("--seed", type=int, default=0)
    add("--float32", action="store_true", help="train without bfloat16")
    add("--sparsity", type=float, help="mask so many of the weights beforehand, the smallest of all layers")
    add("--compile", action="store_true", help="train through torch.compile, which took half the time")
    add("--train-images", type=int, help="only the first so many")
    add("--keep", type=Path, help="JSON-lines file: keep cells, go on after an interrupt")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="qat", arguments=arguments))
