"""What widths cost in milliseconds: int8 files of evenly narrowed models, timed layer by layer.

The model is narrowed to eighths of its widths, each quantized and exported as it would be deployed, and the
runtime's profiler says what each layer takes. That measures a layer only where its inputs and outputs are
narrowed alike; between two groups the time is halved, which is exact for the inner layers of residual
branches and an approximation in chains. What was gained in the end, the comparison of the run measures.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from gracile import decompose, export, measure, prune, quantize, surgery
from gracile.records import Branch, GroupLatency, LatencyTable, PrunePlan

from .original import int8_file
from .state import Bench, State
from .steps.quantize import QuantizeStep

EIGHTHS = 8
PASSES = 2
_RUNS = 9
QUICK = QuantizeStep(activation_range="minmax", weight_range="minmax", rounding="nearest", calibration=16)
"""For files that are only timed: numbers play no part in time."""

Narrow = Callable[[prune.PerLayer], PrunePlan]


def width_times(state: State, bench: Bench, narrow: Narrow, *, runtime: str, batch: int) -> LatencyTable:
    """Time every layer at eighths of the widths.

    Args:
        state: The model before it is pruned.
        bench: The step's tools.
        narrow: Plans an even narrowing.
        runtime: ``ort`` or ``openvino``.
        batch: Batch size.
    """
    runtime = available(runtime, bench)
    ratios = [1 - eighth / EIGHTHS for eighth in range(1, EIGHTHS)]
    plans = [narrow(prune.PerLayer(ratio=ratio)) for ratio in ratios]
    models = [surgery.apply(state.model, plan) for plan in plans] + [state.model]
    times = _times(models, state, bench, runtime, batch)
    groups = plans[0].groups
    layers = {g.name: _layers(g.members, times[-1]) for g in groups}
    sharing = Counter(layer for found in layers.values() for layer in found)

    def of(group: str, at: int) -> float:
        return sum(times[at].get(layer, 0.0) / sharing[layer] for layer in layers[group])

    tables = []
    for place, group in enumerate(groups):
        points = {len(plan.groups[place].keep): of(group.name, at) for at, plan in enumerate(plans)}
        points[group.units] = of(group.name, len(plans))
        tables.append(GroupLatency(name=group.name, points=tuple(sorted(points.items()))))
    whole = sum(times[-1].values())
    mine = sum(table.points[-1][1] for table in tables)
    return LatencyTable(runtime=runtime, batch=batch, groups=tuple(tables), rest=whole - mine)


def branch_times(state: State, bench: Bench, *, runtime: str, batch: int) -> Callable[[Branch], float]:
    """Milliseconds of the layers of a branch, measured once."""
    times = _times([state.model], state, bench, available(runtime, bench), batch)[0]

    def of(branch: Branch) -> float:
        parts = (*branch.inner, branch.end)
        return sum(ms for layer, ms in times.items() if any(f"{layer}.".startswith(f"{p}.") for p in parts))

    return of


def layer_timer(
    bench: Bench, *, runtime: str, batch: int, int8: bool
) -> Callable[[str, nn.Module, nn.Module, tuple[int, ...]], decompose.LayerTime]:
    """Measures a layer against what would stand for it, each exported by itself, in turns.

    Returns:
        Takes the layer's name, both modules and the shape of one input; gives milliseconds a batch of both,
        and whether all of the 95 % interval of their ratio says that the second is faster.
    """
    runtime = available(runtime, bench)

    def timed(name: str, layer: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> decompose.LayerTime:
        images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(bench.seed))
        bench.tick(f"timing {name}", 1, 4)
        with TemporaryDirectory(prefix="layers-", dir=bench.out) as folder:
            candidates = []
            for kind, module in (("dense", layer), ("factored", small)):
                alone: nn.Module = nn.Sequential(copy.deepcopy(module), nn.Flatten()).eval()
                if int8:
                    alone = quantize.ptq(alone, (images[:1],), [images], QUICK.scheme())
                file = Path(folder) / f"{kind}.onnx"
                export.onnx(alone, (images[:1],), file)
                candidates.append(measure.Candidate(name=kind, runtime=runtime, model=file))
            speeds, ratios = measure.bench(candidates, inputs=images, batches=[batch], runs=_RUNS)
        dense, factored = (speed.latency_ms for speed in speeds)
        return decompose.LayerTime(dense=dense, factored=factored, faster=ratios[0].low > 1)

    return timed


def available(runtime: str, bench: Bench) -> str:
    """The runtime asked for, or ONNX Runtime where that one is not installed."""
    if runtime == "openvino" and find_spec("openvino") is None:
        bench.note("OpenVINO is not installed: time is measured in ONNX Runtime.")
        return "ort"
    return runtime


def _times(
    models: list[nn.Module], state: State, bench: Bench, runtime: str, batch: int
) -> list[Mapping[str, float]]:
    """Milliseconds by layer; each file is timed in several passes, of which the fastest counts."""
    images = np.ascontiguousarray(bench.images.numpy()[np.arange(batch) % len(bench.images)])
    with TemporaryDirectory(prefix="times-", dir=bench.out) as folder:
        files = [Path(folder) / f"{place}.onnx" for place in range(len(models))]
        for place, (model, file) in enumerate(zip(models, files, strict=True)):
            bench.tick(f"int8 file {place + 1} of {len(models)} to time", place, 2 * len(models))
            int8_file(
                replace(state, model=model), bench, QUICK, str(file.relative_to(bench.out)), "candidate"
            )
        passes = [
            [measure.layer_times(file, images, runtime=runtime) for file in files] for _ in range(PASSES)
        ]
    return [
        {layer: min(found[layer] for found in file if layer in found) for layer in file[0]}
        for file in zip(*passes, strict=True)
    ]


def _layers(members: tuple[str, ...], times: Mapping[str, float]) -> tuple[str, ...]:
    """Layers of the file that hold a parameter of a group."""
    owners = {member.partition(":")[0].rpartition(".")[0] for member in members}
    return tuple(sorted(owner for owner in owners if owner in times))
