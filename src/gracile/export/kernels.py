"""Which kernel each layer of a file got: the runtime's own optimised graph is read back.

A quantized file says what could run in integers; what does run is decided when a runtime fuses its graph.
ONNX Runtime writes the graph that it will execute to a file, OpenVINO gives it with the precision of each
operation.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from gracile.errors import BadArgument, ExportError, import_extra

from .onnx_file import LAYERS_KEY

_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_LAYOUT = {"Transpose", "Reshape", "Flatten", "ReorderInput", "ReorderOutput", "Squeeze", "Unsqueeze"}
_ACTIVATIONS = {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_INTEGER_TYPES = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}


def kernels(path: Path | str, level: str = "all", *, runtime: str = "ort") -> tuple[dict[str, Any], ...]:
    """Say for each operation of an ONNX file which kernel runs it.

    Args:
        path: An ONNX file; in one written by :func:`gracile.export.onnx` nodes have the names of layers.
        level: Optimisation level of ONNX Runtime: disable, basic, extended or all.
        runtime: ``ort`` or ``openvino``.

    Returns:
        One entry per operation in running order: ``layer`` (dotted name, or the node's name), ``bits`` asked
        for its weights (``None`` where it has none), ``op`` (what the file holds), ``kernel`` (what runs) and
        ``integer`` (whether it computes on integers). Changes of layout are left out; conversions between
        integers and floats are entries of their own.

    Raises:
        BadArgument: An unknown level or runtime.
        ExportError: The runtime refuses the file.
        MissingExtra: OpenVINO is asked for and not installed.
    """
    if runtime not in ("ort", "openvino"):
        raise BadArgument("runtime", wanted="ort or openvino", found=repr(runtime))
    if level not in _LEVELS:
        raise BadArgument("level", wanted=f"one of {', '.join(_LEVELS)}", found=repr(level))
    original = onnx.load(str(path), load_external_data=False)
    asked = asked_bits(original)
    ops = {node.name: node.op_type for node in original.graph.node}
    if runtime == "openvino":
        return _openvino_rows(Path(path), asked, ops)
    return _ort_rows(_optimised(Path(path), level), asked, ops, _names(original))


def asked_bits(proto: ModelProto) -> dict[str, int]:
    """Layer (node name) to the weight bits asked for, as kept in the file; empty for a foreign file."""
    for entry in proto.metadata_props:
        if entry.key == LAYERS_KEY:
            return {str(k): int(v) for k, v in json.loads(entry.value).items()}
    return {}


def _optimised(path: Path, level: str) -> ModelProto:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[level])
        options.optimized_model_filepath = str(written)
        options.log_severity_level = 3  # it warns that the file fits this machine only
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(
                str(path), wanted="a file that ONNX Runtime loads", found=str(error).strip().splitlines()[0]
            ) from error
        return onnx.load(str(written))


def _ort_rows(
    proto: ModelProto, asked: dict[str, int], ops: dict[str, str], names: dict[str, str]
) -> tuple[dict[str, Any], ...]:
    integers = {t.name for t in proto.graph.initializer if t.data_type in _INTEGER_TYPES}
    rows = []
    for node in proto.graph.node:
        whole = _computes_integers(node, integers)
        if (whole and not _gives_floats(node)) or node.op_type == "QuantizeLinear":
            integers.update(node.output)
        elif node.op_type == "DynamicQuantizeLinear":
            integers.add(node.output[0])  # the others are the scale and the zero point
        if node.op_type in _LAYOUT:
            continue
        name = _original_name(node.name, names)
        domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain.removeprefix('com.')}."
        rows.append(
            {
                "layer": name,
                "bits": asked.get(name),
                "op": ops.get(name, node.op_type),
                "kernel": f"{domain}{node.op_type}",
                "integer": whole or node.op_type in _CONVERSIONS,
            }
        )
    return tuple(rows)


def _computes_integers(node: NodeProto, integers: set[str]) -> bool:
    kind = node.op_type
    if kind in _CONVERSIONS or kind == "Cast":
        return False
    if kind.startswith("QLinear") or kind in (
        "QGemm",
        "MatMulInteger",
        "ConvInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    ):
        return True
    return bool(node.input) and node.input[0] in integers


def _gives_floats(node: NodeProto) -> bool:
    """An integer product that is scaled at once: no scale of an output (the 8th input of QGemm) is given."""
    always = node.op_type in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
    return always or (node.op_type == "QGemm" and len(node.input) < 8)


def _original_name(name: str, names: dict[str, str]) -> str:
    """The name in the file: ONNX Runtime writes ``conv1_token_7``, ``fused conv1`` or ``VALUE_nchwc``."""
    name = name.removeprefix("fused ").removesuffix("_nchwc")
    if name in names:
        return names[name]
    starts = [known for known in names if known and name.startswith((f"{known}_", f"{known}/"))]
    return names[max(starts, key=len)] if starts else name


def _names(proto: ModelProto) -> dict[str, str]:
    """Names of nodes and of values to the name of their node; behind an activation, that of its layer."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    names = {node.name: node.name for node in proto.graph.node}
    for value, node in makers.items():
        behind = makers.get(node.input[0]) if node.op_type in _ACTIVATIONS else None
        names.setdefault(value, (behind or node).name)
    return names


def _openvino_rows(path: Path, asked: dict[str, int], ops: dict[str, str]) -> tuple[dict[str, Any], ...]:
    openvino = import_extra("openvino", "openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        kind, precision = str(info["layerType"].value), str(info["runtimePrecision"].value)
        if kind in ("Input", "Output", "Const", "Constant", "Reorder", "Reshape"):
            continue
        sources = [s.split("/")[0] for s in str(info["originalLayersNames"].value).split(",") if s]
        layers = [s for s in sources if s in asked] or [s for s in sources if s in ops] or [op.friendly_name]
        rows.append(
            {
                "layer": layers[0],
                "bits": asked.get(layers[0]),
                "op": ops.get(layers[0], kind),
                "kernel": f"{kind}.{info['primitiveType'].value}",
                "integer": precision.lower() in ("i8", "u8"),
            }
        )
    return tuple(rows)
