"""Time of each layer of an ONNX file, as the runtime's own profiler sees it.

Profiling costs time itself, and layers that a runtime fuses are one entry. The figures say which layers of a
file take its time; how fast the file is, :func:`gracile.measure.bench` says.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from gracile.errors import BadArgument

from .runtimes import _existing, _threads, openvino_runner

Images = NDArray[np.float32]
_LAYERS = {"Conv", "Gemm", "MatMul", "ConvTranspose"}


def layer_times(
    path: Path | str,
    images: Images,
    *,
    runtime: str = "ort",
    runs: int = 11,
    warmup: int = 3,
    threads: int | None = None,
) -> dict[str, float]:
    """Milliseconds of each operation, medians over runs.

    Args:
        path: ``.onnx`` file; in one written by :func:`gracile.export.onnx` layers have the model's names.
        images: One batch ``(batch, ...)``.
        runtime: ``ort`` or ``openvino``.
        runs: Profiled runs.
        warmup: Runs before them.
        threads: All cores that this process may use where not given.

    Returns:
        By the name of the layer (or of the operation where it is none), in running order.

    Raises:
        BadArgument: An unknown runtime, or numbers below 1.
        MissingExtra: OpenVINO is asked for and not installed.
        ModelError: The file is absent, or not a model that the runtime can run.
    """
    if runtime not in _PROFILERS:
        raise BadArgument("runtime", wanted=" or ".join(_PROFILERS), found=repr(runtime))
    if runs < 1 or warmup < 1:
        raise BadArgument("runs, warmup", wanted="at least 1", found=f"{runs=}, {warmup=}")
    path = _existing(path)
    profiles = _PROFILERS[runtime](path, images, runs + warmup, threads)[warmup:]
    names = [n.name for n in onnx.load(str(path), load_external_data=False).graph.node
             if n.op_type in _LAYERS]  # fmt: skip
    found: dict[str, list[float]] = defaultdict(list)
    for profile in profiles:
        summed: dict[str, float] = defaultdict(float)
        for operation, ms in profile:
            summed[_layer(operation, names)] += ms
        for name, ms in summed.items():
            found[name].append(ms)
    return {name: float(np.median(values)) for name, values in found.items()}


def _layer(operation: str, names: list[str]) -> str:
    """The layer that an operation computes: runtimes add to its name (``conv1_kernel_time``)."""
    parts = [part.removeprefix("fused ") for part in operation.split(",")]
    for part in parts:
        if part in names:
            return part
    starts = [
        n for n in names for part in parts if re.match(rf"{re.escape(n)}(?![\w.])|{re.escape(n)}_", part)
    ]
    return max(starts, key=len) if starts else parts[0]


Profile = list[tuple[str, float]]
"""Operation and milliseconds, of one run."""


def _openvino(path: Path, images: Images, runs: int, threads: int | None) -> list[Profile]:
    runner = openvino_runner(path, threads)
    runner.config["PERF_COUNT"] = True
    runner(images)  # compiles
    compiled = runner.compiled[images.shape]
    sources = {op.friendly_name: _sources(op.get_rt_info()) for op in compiled.get_runtime_model().get_ops()}
    request = compiled.create_infer_request()
    profiles = []
    for _ in range(runs):
        request.infer({0: images}, share_inputs=True)
        profiles.append(
            [
                (sources.get(entry.node_name) or entry.node_name, 1000 * entry.real_time.total_seconds())
                for entry in request.profiling_info
            ]
        )
    return profiles


def _sources(info: Any) -> str:
    """The operations that OpenVINO made one of, with commas between."""
    return str(info["originalLayersNames"].value) if "originalLayersNames" in info else ""


def _ort(path: Path, images: Images, runs: int, threads: int | None) -> list[Profile]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for _ in range(runs):
            session.run(None, {name: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    profiles: list[Profile] = []
    for event in sorted(events, key=lambda e: e["ts"]):
        if event["cat"] == "Session" and event["name"] == "model_run":
            profiles.append([])
    kernels = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    kernels.sort(key=lambda e: e["ts"])
    each = len(kernels) // max(len(profiles), 1)
    for i, event in enumerate(kernels):
        profiles[min(i // max(each, 1), len(profiles) - 1)].append((event["name"], event["dur"] / 1000))
    return profiles


_PROFILERS: dict[str, Callable[[Path, Images, int, int | None], list[Profile]]] = {
    "ort": _ort,
    "openvino": _openvino,
}
