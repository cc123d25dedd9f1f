"""What a step of quantization-aware training costs, relative to the same step in float: ResNet-20 on a CPU.

Networks take turns, round by round: float, fake quantization of weights and activations for each technique
and each place of batch norm, and both float and the default under ``torch.compile`` (``--compile``; it needs
a C++ compiler). A figure is the median over rounds of the ratio to float in the same round, with a 95 %
interval of that median; forward, backward and an SGD step, random images; under bfloat16 autocast
where the processor has instructions for it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from benchmarks.rows import Row, benchmark_main
from gracile import measure, zoo
from gracile.errors import UsageError
from gracile.observe import bfloat16_autocast, fast_bfloat16
from gracile.quantize import qat

VARIANTS: dict[str, qat.QatScheme] = {
    "default": qat.QatScheme(activation_bits=4),
    "ema": qat.QatScheme(activation_bits=4, weights="minmax", activations="ema"),
    "dorefa_pact": qat.QatScheme(activation_bits=4, weights="dorefa", activations="pact"),
    "ternary": qat.QatScheme(weight_bits=2, weights="twn"),
    "binary": qat.QatScheme(weight_bits=1, weights="xnor"),
    **{
        f"norms_{name}": qat.QatScheme(activation_bits=4, batch_norm=name)
        for name in qat.SCHEMES_OF_BN
        if name != "plain"
    },
}

FEWEST = 6  # rounds that an interval of 95 % takes
MUST = {"default": "<= 3", "default_compiled": "<= 1.5"}
"""Bars of our own: nothing else in the project notices when a step becomes slower."""


def stepper(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        with bfloat16_autocast(images.device, None):
            outputs = model(images)
        F.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Time every network in turns."""
    if parsed.runs < FEWEST:
        raise UsageError("--runs", wanted=f"at least {FEWEST}, for an interval", found=str(parsed.runs))
    weights = Path(parsed.data_root) / "weights" / "cifar10_resnet20.safetensors"
    images = torch.randn(parsed.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(parsed.batch) % 10

    def network() -> nn.Module:
        return zoo.load_model("gracile:resnet20", weights=weights)

    models: dict[str, nn.Module] = {"float": network().train()}
    for name, scheme in VARIANTS.items():
        models[name] = qat.prepare(network().eval(), (images[:1],), images.split(64), scheme).train()
    if parsed.compile:
        models["float_compiled"] = torch.compile(network().train())  # type: ignore[assignment]
        whole = qat.prepare(network().eval(), (images[:1],), images.split(64), VARIANTS["default"])
        models["default_compiled"] = torch.compile(whole.train())  # type: ignore[assignment]
    steps = {name: stepper(model, images, labels) for name, model in models.items()}
    for step in steps.values():
        step()  # compiles, allocates
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in track(range(parsed.runs), "rounds", console=Console(stderr=True)):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    rows, details = [], []
    for name, taken in seconds.items():
        ratios = [own / plain for own, plain in zip(taken, seconds["float"], strict=True)]
        ratio, low, high = measure.median_ci(ratios)
        details.append({
            "network": name, "times_float": ratio, "low": low, "high": high, "n": parsed.runs,
            "median_s": statistics.median(taken), "threads": torch.get_num_threads(),
            "bf16": fast_bfloat16(images.device),
        })  # fmt: skip
        if name in MUST:
            rows.append(Row(id=f"qat.resnet20.step_time.{name}", value=ratio, unit="x", n=parsed.runs,
                            spread=(low, high), must=MUST[name]))  # fmt: skip
    return rows, details


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--batch", type=int, default=128, help="images, default 128")
    parser.add_argument("--runs", type=int, default=11, help="rounds, default 11")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="qat_time", arguments=arguments))
