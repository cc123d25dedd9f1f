"""A model as an ONNX file: float, or with QuantizeLinear / DequantizeLinear where a quantized model rounds.

The quantizers of ``gracile.nn`` write their own nodes while ``torch.onnx.export`` traces them. That was
chosen over adding nodes to a float file afterwards: the exporter decomposes and renames, and only what is in
the traced graph stays where it was in the simulation. What the exporter adds for debugging is taken out, and
nodes and values get the names of layers and edges, so that the file can be read beside the plan.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Literal

import torch
from onnx import ModelProto, NodeProto, checker
from torch import Tensor, nn
from torch.export import Dim

from gracile.errors import BadArgument, ExportError
from gracile.graph import evaluating
from gracile.nn import DynamicQuantizer, QuantizedModel, QuantizedWeight
from gracile.nn.quantizers import NAME_KEY
from gracile.records import Artifact, atomic_write, sha256

from .dynamic_layers import dynamic_layers
from .merge_pads import merge_pads
from .strided_shortcuts import strided_shortcuts
from .unsigned_weights import unsigned_weights

LAYERS_KEY = "gracile.layers"
"""Model metadata: JSON of layer (node name) to weight bits asked for."""

_OPSET = 20
_OPEN_BATCH = (
    "Where the model fixes its batch size, write it so that any fits; from Python, "
    "gracile.export.onnx(..., dynamic_batch=False) writes a file for the example's size alone."
)
_LAYER_OPS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "ConvInteger", "MatMulInteger")


def onnx(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path | str,
    *,
    dynamic_batch: bool = True,
    weights: Literal["int8", "uint8"] = "int8",
) -> Artifact:
    """Write ``model`` to ``path``, checked by ONNX, wholly or not at all.

    Args:
        model: A float module, or a quantized one, which is written with integer weights.
        inputs: Example inputs whose first axis is the batch.
        path: File to write; its folder is made.
        dynamic_batch: Leave the batch size open.
        weights: How integer weights are written. ``uint8`` is for ONNX Runtime on x86 without VNNI, where the
            faster kernels for ``int8`` overflow (:mod:`gracile.export.unsigned_weights`).

    Returns:
        The file's name, checksum and size.

    Raises:
        BadArgument: ``weights`` is something else.
        ExportError: The exporter or the ONNX checker refuses the model, or it finds ranges of fewer than 8
            bits at run time, for which ONNX has no operator.
        StorageError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> art = onnx(nn.Linear(4, 2), (torch.zeros(1, 4),), Path(tempfile.mkdtemp()) / "m.onnx")
        >>> art.name
        'm.onnx'
    """
    path = Path(path)
    if weights not in ("int8", "uint8"):
        raise BadArgument("weights", wanted="int8 or uint8", found=repr(weights))
    _check_dynamic(model)
    quantized = isinstance(model, QuantizedModel)
    if isinstance(model, QuantizedModel):
        model = model.network  # so that names in the file are those of the user's layers
    with evaluating(model), torch.no_grad():
        proto = _traced(model, inputs, dynamic_batch)
    _tidy(proto)
    merge_pads(proto)
    copies = strided_shortcuts(proto)
    dynamic_layers(proto)
    if weights == "uint8":
        unsigned_weights(proto)
    _describe(proto, model, quantized, copies)
    try:
        checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(
            str(path), wanted="a valid ONNX model", found=str(error).strip().splitlines()[0]
        ) from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return Artifact(name=path.name, path=path.name, sha256=sha256(path), size_bytes=path.stat().st_size)


def _traced(model: nn.Module, inputs: tuple[Tensor, ...], dynamic_batch: bool) -> ModelProto:
    shapes: tuple[object, ...] | None = None
    if dynamic_batch:  # a batch of one would be taken for a constant, so the example is doubled
        inputs = tuple(torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x for x in inputs)
        shapes = tuple({0: Dim.DYNAMIC} if x.dim() else None for x in inputs)
        kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
        if kinds and kinds[0] is inspect.Parameter.VAR_POSITIONAL:
            shapes = (shapes,)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=_opset(model),
                input_names=["input"] if len(inputs) == 1 else None,
                verbose=False,
                external_data=False,
            )
    except Exception as error:
        raise ExportError(
            type(model).__name__,
            wanted="a model that torch.onnx.export can write",
            found=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}",
            do=_OPEN_BATCH if dynamic_batch else "",
        ) from error
    assert program is not None
    proto = program.model_proto
    assert isinstance(proto, ModelProto)
    return proto


def _check_dynamic(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, DynamicQuantizer) and module.bits != 8:
            raise ExportError(
                module.name,
                wanted="8 bits for activations whose ranges are found at run time",
                found=f"{module.bits} bits",
                do="Set activation_bits=8, or dynamic=False, whose fixed grids take 2 to 8 bits.",
            )


def _opset(model: nn.Module) -> int:
    """21 where weights have scales by group, which ONNX calls blocks; runtimes know 20 for longer."""
    groups = any(isinstance(m, QuantizedWeight) and m.group is not None for m in model.modules())
    return 21 if groups else _OPSET


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and logs its progress; errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tidy(proto: ModelProto) -> None:
    """Name nodes after layers, drop debugging data and what the shapes of inner values say."""
    _name_nodes(proto)
    graph = proto.graph
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    del proto.metadata_props[:]
    del proto.functions[:]


def _name_nodes(proto: ModelProto) -> None:
    """Conv, Gemm: the layer's dotted name. QuantizeLinear: ``quantize:EDGE``, and its output ``EDGE:q``."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    initializers = {tensor.name for tensor in proto.graph.initializer}
    renamed: dict[str, str] = {}
    taken: set[str] = set()

    def unique(name: str) -> str:
        number, wanted = 1, name
        while wanted in taken:
            number += 1
            wanted = f"{name}:{number}"
        taken.add(wanted)
        return wanted

    for node in proto.graph.node:
        about = _about(node)
        if node.op_type == "QuantizeLinear" and about:
            node.name = unique(f"quantize:{about}")
            renamed[node.output[0]] = f"{node.name.removeprefix('quantize:')}:q"
        elif node.op_type == "DequantizeLinear" and about:
            node.name = unique(f"dequantize:{about}")
        elif node.op_type in _LAYER_OPS:
            layer = _layer_name(node, makers, initializers)
            node.name = unique(layer) if layer else unique(node.name)
        else:
            node.name = unique(node.name)
    _rename_values(proto, renamed)


def _about(node: NodeProto) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == NAME_KEY), "")


def _layer_name(node: NodeProto, makers: dict[str, NodeProto], initializers: set[str]) -> str:
    """From the DequantizeLinear that makes the weight, or from the weight's own name."""
    weight = node.input[1]
    maker = makers.get(weight)
    if maker is not None:
        while maker is not None and maker.op_type in ("Transpose", "Reshape"):
            weight = maker.input[0]
            maker = makers.get(weight)
        if maker is not None:
            return _about(maker)
    return weight.removesuffix(".weight") if weight in initializers and "val_" not in weight else ""


def _rename_values(proto: ModelProto, renamed: dict[str, str]) -> None:
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _describe(proto: ModelProto, model: nn.Module, quantized: bool, copies: tuple[str, ...]) -> None:
    """Keep in the file what was asked for: the bits of each layer, ``copies`` not being the model's own."""
    names = {node.name for node in proto.graph.node if node.op_type in _LAYER_OPS}.difference(copies)
    bits = {m.name: m.bits for m in model.modules() if isinstance(m, QuantizedWeight)}
    asked = {name: bits.get(name.split(":")[0], 32) for name in sorted(names)}
    entry = proto.metadata_props.add()
    entry.key, entry.value = LAYERS_KEY, json.dumps(asked, separators=(",", ":"))
    proto.producer_name = "gracile"
    proto.doc_string = "integers: QuantizeLinear / DequantizeLinear" if quantized else ""
