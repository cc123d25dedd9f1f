"""Quantization-aware training beside Brevitas: same weights, bits, data, epochs, loss and optimizer.

ResNet-20 on CIFAR-10, first and last layers at 8 bits. Each tool trains with its own defaults for few bits:
Gracile learns all steps; Brevitas scales weights per channel by their largest value (its ``Int8`` quantizers
with another number of bits) and learns the ranges of activations. Brevitas quantizes what layers read;
Gracile also what sums read, at 8 bits, because it deploys integers. Gracile is judged by its exported file in
ONNX Runtime, Brevitas by its simulation in PyTorch, both on the 1,000 test images.

Brevitas is optional: where it is not installed its cells are left out, and that is said.
"""

from __future__ import annotations

import argparse
import copy
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import qat as ours
from benchmarks.cells import Cells
from benchmarks.rows import Row, benchmark_main
from gracile import measure, tune, zoo
from gracile.data import DataBundle, load_data

CELLS = ("resnet20:W4A4", "resnet20:W2A8")


def original(parsed: argparse.Namespace) -> nn.Module:
    """ResNet-20 with its shared weights."""
    weights = Path(parsed.data_root) / "weights" / "cifar10_resnet20.safetensors"
    return zoo.load_model("gracile:resnet20", weights=weights).eval()


def of_brevitas(model: nn.Module, weight_bits: int, activation_bits: int) -> nn.Module:
    """A copy whose layers are Brevitas's, with the same float weights."""
    from brevitas import nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Uint8ActPerTensorFloat

    model = copy.deepcopy(model)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for name in layers:
        held = model.get_submodule(name)
        end = name in (layers[0], layers[-1])
        chosen: dict[str, Any] = {
            "weight_quant": Int8WeightPerChannelFloat,
            "weight_bit_width": 8 if end else weight_bits,
            "input_quant": Int8ActPerTensorFloat if name == layers[0] else Uint8ActPerTensorFloat,
            "input_bit_width": 8 if end else activation_bits,
            "bias": held.bias is not None,
        }
        if isinstance(held, nn.Conv2d):
            new = qnn.QuantConv2d(
                held.in_channels, held.out_channels, held.kernel_size, stride=held.stride,
                padding=held.padding, dilation=held.dilation, groups=held.groups, **chosen,
            )  # fmt: skip
        else:
            assert isinstance(held, nn.Linear)
            new = qnn.QuantLinear(held.in_features, held.out_features, **chosen)
        new.weight.data.copy_(held.weight.data)
        if held.bias is not None:
            new.bias.data.copy_(held.bias.data)
        model.set_submodule(name, new)
    return model


def by_brevitas(cell: str, bundle: DataBundle, parsed: argparse.Namespace) -> dict[str, Any]:
    """Train as ``benchmarks.qat`` does, the network being Brevitas's."""
    _, weights, activations, _ = ours.parted(cell)
    whole = original(parsed)
    model = of_brevitas(whole, weights, activations)
    config = tune.TuneConfig(
        epochs=parsed.epochs, lr=parsed.lr, seed=parsed.seed, augment=True, weight_decay=parsed.decay,
        warmup_epochs=0.1, bf16=False if parsed.float32 else None,
    )  # fmt: skip
    examples = bundle.train.subset(range(parsed.train_images)) if parsed.train_images else bundle.train
    loss = tune.Distillation(whole, weight=parsed.distill, bf16=config.bf16) if parsed.distill else None
    history = tune.fit(model, examples, config, loss=loss, progress=True)
    before, labels = measure.predictions(whole, bundle.test, 100)
    after, _ = measure.predictions(model.eval(), bundle.test, 100)
    return {"tool": "brevitas", "name": cell, "seconds": history.seconds, "n": len(labels),
            **judged(before, after, labels)}  # fmt: skip


def by_gracile(cell: str, bundle: DataBundle, parsed: argparse.Namespace) -> dict[str, Any]:
    """The cell of ``benchmarks.qat``."""
    found = ours.trained(cell, bundle, parsed, None)
    names = ("name", "seconds", "n", "float", "accuracy", "difference", "low", "high")
    return {"tool": "gracile"} | {name: found[name] for name in names}


def judged(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracies, and their difference image by image."""
    found = measure.compare(before, after, labels)
    return {
        "float": measure.accuracy(before, labels).percent,
        "accuracy": measure.accuracy(after, labels).percent,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every cell of both tools that is not kept."""
    bundle = load_data("cifar10", parsed.data_root)
    tools = {"gracile": by_gracile, "brevitas": by_brevitas}
    if find_spec("brevitas") is None:
        Console(stderr=True).print("brevitas is not installed: its cells are left out.")
        del tools["brevitas"]
    cells, entries = Cells(parsed.keep), []
    for cell in parsed.cells:
        for tool, make in tools.items():
            key = f"{tool} {cell} {ours.settings_of(parsed)}"
            entries.append(cells.get(key, partial(make, cell, bundle, parsed)))
    table = Table("tool", "cell", "float, %", "quantized, %", "95 % of the difference", "minutes")
    for e in entries:
        table.add_row(e["tool"], e["name"], f"{e['float']:.1f}", f"{e['accuracy']:.1f}",
                      f"{e['low']:+.1f} to {e['high']:+.1f}", f"{e['seconds'] / 60:.1f}")  # fmt: skip
    Console().print(table)
    return [row for cell in parsed.cells for row in rows_of(cell, entries)], entries


def rows_of(cell: str, entries: list[dict[str, Any]]) -> list[Row]:
    """Points that our accuracy lies below Brevitas's; none where one of the two is missing."""
    found = {e["tool"]: e for e in entries if e["name"] == cell}
    if len(found) < 2:
        return []
    behind = found["brevitas"]["accuracy"] - found["gracile"]["accuracy"]
    return [Row(id=f"qat_beside.{cell.replace(':', '.')}.points_behind_brevitas", value=behind, unit="points",
                n=found["gracile"]["n"], must="<= 0")]  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``benchmarks.qat``, with two cells by default."""
    ours.arguments(parser)
    parser.set_defaults(cells=list(CELLS))


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="qat_side_by_side", arguments=arguments))
