"""Does the runtime compute what the simulation computed? Compared layer by layer, in quantization steps.

Small differences grow from layer to layer, so the two are also compared with the same inputs: behind each
quantizer the simulation goes on with the runtime's own values, and what a layer shows is its own doing.
Rounding of exact halves may differ by one step; more than that means that the runtime computes something
else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from gracile.errors import BadArgument, ExportError, import_extra
from gracile.nn import ActivationQuantizer, DynamicQuantizer, QuantizedModel, dequantize, quantize

_SUFFIX = ":q"

Session = Callable[[Path, list[str] | None, tuple[Tensor, ...]], list[Any]]
"""Runs a file on inputs and gives the named outputs, or all."""


def parity(
    quantized: nn.Module, path: Path | str, batch: Tensor | tuple[Tensor, ...], *, runtime: str = "ort"
) -> tuple[dict[str, Any], ...]:
    """Compare a quantized model with the file made from it, on one batch in a runtime.

    Args:
        quantized: A model with quantizers, the one that was exported.
        path: The file.
        batch: Inputs, of any batch size the file takes.
        runtime: ``ort`` or ``openvino``; the latter computes what is left in float in 32 bits.

    Returns:
        One entry per quantized value in running order: ``layer`` (edge name), ``max_steps`` and
        ``mean_steps`` (difference with the same inputs to the layer), ``share`` (of values that differ) and
        ``drift_steps`` (largest difference when both run freely from the first layer on). None where ranges
        are found at run time.

    Raises:
        BadArgument: An unknown runtime.
        ExportError: The file does not hold the quantizers of this model.
        MissingExtra: OpenVINO is asked for and not installed.
    """
    if any(isinstance(m, DynamicQuantizer) for m in quantized.modules()):
        return ()  # steps are another batch's each time
    inputs = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    quantizers = {m.name: m for m in quantized.modules() if isinstance(m, ActivationQuantizer)}
    computed = _runtime_integers(Path(path), quantizers, inputs, _session(runtime))
    quantizers = {name: module for name, module in quantizers.items() if name in computed}
    rows: dict[str, dict[str, Any]] = {}

    def integers_of(module: ActivationQuantizer, value: Tensor) -> Tensor:
        return computed[module.name].to(value.device).clamp(module.qmin, module.qmax)

    def follow(module: ActivationQuantizer, value: Tensor) -> Tensor:
        theirs = integers_of(module, value)
        apart = (_integers(module, value) - theirs).abs()
        rows[module.name] = {
            "layer": module.name,
            "max_steps": float(apart.max()),
            "mean_steps": float(apart.mean()),
            "share": float((apart > 0).float().mean()),
        }
        return dequantize(theirs, module.scale, module.zero_point)

    def watch(module: ActivationQuantizer, value: Tensor) -> Tensor:
        theirs = integers_of(module, value)
        rows[module.name]["drift_steps"] = float((_integers(module, value) - theirs).abs().max())
        return value

    for action in (follow, watch):
        with _behind(quantizers, action), torch.no_grad():
            quantized(*inputs)
    return tuple(rows.values())


def first_apart(rows: tuple[dict[str, Any], ...], steps: float = 1.0) -> str | None:
    """Name of the first layer that differs by more than ``steps`` from the runtime, ``None`` if none does.

    Example:
        >>> first_apart(({"layer": "relu", "max_steps": 1.0}, {"layer": "add", "max_steps": 9.0}))
        'add'
    """
    return next((row["layer"] for row in rows if row["max_steps"] > steps), None)


def output_steps(
    quantized: QuantizedModel, path: Path | str, batch: Tensor | tuple[Tensor, ...], *, runtime: str = "ort"
) -> Tensor:
    """How far the outputs of simulation and file are apart, both run freely, in steps of the last scale.

    The last scale is that of the last value that is rounded: behind it come sums of such values, so where
    not one of them lies exactly between two steps the result is near 0. Where one does, and is rounded the
    other way, layers of few bits may carry that on.

    Returns:
        The largest difference of each example, shape (batch,).

    Raises:
        BadArgument: An unknown runtime.
        MissingExtra: OpenVINO is asked for and not installed.
    """
    inputs = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    scales = {edge.name: edge.scale for edge in quantized.plan.edges}
    names = [m.name for m in quantized.modules() if isinstance(m, ActivationQuantizer) and m.name in scales]
    with torch.no_grad():
        wanted = quantized(*inputs)
    found = _session(runtime)(Path(path), None, inputs)[0]
    apart = (torch.from_numpy(np.asarray(found)) - wanted.cpu()).abs()
    steps: Tensor = apart.flatten(1).amax(1) / scales[names[-1]]
    return steps


def _integers(module: ActivationQuantizer, value: Tensor) -> Tensor:
    return quantize(value, module.scale, module.zero_point, module.qmin, module.qmax)


@contextmanager
def _behind(
    quantizers: dict[str, ActivationQuantizer], action: Callable[[ActivationQuantizer, Tensor], Tensor]
) -> Iterator[None]:
    """Call ``action`` on each quantizer's output and go on with what it gives."""
    handles = [
        module.register_forward_hook(lambda module, args, output: action(module, output))
        for module in quantizers.values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _runtime_integers(
    path: Path, quantizers: dict[str, ActivationQuantizer], inputs: tuple[Tensor, ...], session: Session
) -> dict[str, Tensor]:
    """What a runtime computes at each quantizer, from a temporary copy of the file with more outputs."""
    proto = onnx.load(str(path))
    made = [output for node in proto.graph.node for output in node.output if output.endswith(_SUFFIX)]
    known = [
        name for name in quantizers if f"{name}{_SUFFIX}" in made
    ]  # equal branches are merged in the file
    wanted = [f"{name}{_SUFFIX}" for name in known]
    if strange := sorted(set(made) - set(wanted)) or (not known and ["no quantized value"]):
        raise ExportError(
            str(path),
            wanted="the file that was exported from this model",
            found=strange[0],
            do="Export the model again.",
        )
    proto.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.UINT8, None) for n in wanted)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "with_outputs.onnx"
        onnx.save(proto, str(copy))
        values = session(copy, wanted, inputs)
    found = zip(known, values, strict=True)
    return {name: torch.from_numpy(np.asarray(value, dtype=np.float32)) for name, value in found}


def _session(runtime: str) -> Session:
    sessions = {"ort": _run_ort, "openvino": _run_openvino}
    if runtime not in sessions:
        raise BadArgument("runtime", wanted="ort or openvino", found=repr(runtime))
    return sessions[runtime]


def _run_ort(path: Path, wanted: list[str] | None, inputs: tuple[Tensor, ...]) -> list[Any]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    feeds = {name: x.detach().cpu().numpy() for name, x in zip(names, inputs, strict=True)}
    return list(session.run(wanted, feeds))


def _run_openvino(path: Path, wanted: list[str] | None, inputs: tuple[Tensor, ...]) -> list[Any]:
    openvino = import_extra("openvino", "openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = compiled([x.detach().cpu().numpy() for x in inputs])
    if wanted is None:
        return [values[output] for output in compiled.outputs]
    outputs = {name: output for output in compiled.outputs for name in output.get_names()}
    return [values[outputs[name]] for name in wanted]
