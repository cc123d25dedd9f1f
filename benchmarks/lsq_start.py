"""Where learned steps start: relative error of weights that are rounded from each start, before any training.

The weights are those of the convolutions and the linear layer of ResNet-20 for CIFAR-10, with one step a
layer or one a channel. The error of a layer is ``|Q(W) - W| / |W|``, the figure the mean over layers. Starts:
the least squared error, which :class:`gracile.quantize.qat.LSQ` uses; that of LSQ (Esser et al. 2020),
``2 mean|W| / sqrt(qmax)``; that of LSQ+ (Bhalgat et al. 2020), the larger of ``|mean - 3 std|`` and
``|mean + 3 std|`` over ``2^(b-1)``; and the largest weight over ``qmax``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.int8 import weights
from benchmarks.rows import Row, benchmark_main
from gracile import quantize, zoo

BITS = (2, 3, 4, 8)
USED = "least squared error"


def of_lsq(rows: Tensor, bits: int) -> Tensor:
    """Twice the mean size over the root of the largest integer."""
    return 2 * rows.abs().mean(1) / (2 ** (bits - 1) - 1) ** 0.5


def of_lsq_plus(rows: Tensor, bits: int) -> Tensor:
    """Three standard deviations round the mean, the farther end."""
    mean, deviation = rows.mean(1), rows.std(1)
    return torch.maximum((mean - 3 * deviation).abs(), (mean + 3 * deviation).abs()) / 2 ** (bits - 1)


def of_largest(rows: Tensor, bits: int) -> Tensor:
    """The largest weight is the largest integer."""
    return rows.abs().amax(1) / (2 ** (bits - 1) - 1)


def of_squared_error(rows: Tensor, bits: int) -> Tensor:
    """The step that rounds with the least squared error."""
    found = quantize.MSE()(rows, bits=bits, signed=True, symmetric=True, axis=0)
    return found.scale.reshape(-1)


STARTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    USED: of_squared_error,
    "LSQ's": of_lsq,
    "LSQ+'s": of_lsq_plus,
    "largest weight": of_largest,
}


def error(rows: Tensor, step: Tensor, bits: int) -> float:
    """Relative error of ``rows`` rounded with a step each."""
    qmax = 2 ** (bits - 1) - 1
    rounded = torch.round(rows / step[:, None]).clamp(-qmax, qmax) * step[:, None]
    return float((rounded - rows).norm() / rows.norm())


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every start, for both kinds of steps, at every number of bits."""
    model = zoo.load_model(
        "gracile:resnet20", weights=weights(parsed.data_root) / "cifar10_resnet20.safetensors"
    )
    layers = [m.weight.detach() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    entries = []
    for each in ("layer", "channel"):
        matrices = [w.reshape(1, -1) if each == "layer" else w.flatten(1) for w in layers]
        for start, step_of in STARTS.items():
            found = {
                f"bits_{bits}": statistics.fmean(error(m, step_of(m, bits), bits) for m in matrices)
                for bits in BITS
            }
            entries.append({"a_step_for_each": each, "start": start, "layers": len(layers), **found})
    show(entries)
    return rows_of(entries), entries


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """The error of the start that is used over the least of the others."""
    rows = []
    for each in ("layer", "channel"):
        of_each = [e for e in entries if e["a_step_for_each"] == each]
        used = next(e for e in of_each if e["start"] == USED)
        for bits in BITS:
            other = min(e[f"bits_{bits}"] for e in of_each if e["start"] != USED)
            rows.append(Row(id=f"lsq_start.resnet20.{each}.W{bits}.over_best_other", unit="x", must="<= 1",
                            value=used[f"bits_{bits}"] / other, n=used["layers"]))  # fmt: skip
    return rows


def show(entries: list[dict[str, Any]]) -> None:
    """Print every start."""
    table = Table("a step for each", "start", *(f"{bits} bits" for bits in BITS))
    for e in entries:
        table.add_row(e["a_step_for_each"], e["start"], *(f"{e[f'bits_{bits}']:.3f}" for bits in BITS))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="lsq_start"))
