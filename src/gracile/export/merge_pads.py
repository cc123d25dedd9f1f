"""Zero padding in front of a convolution becomes the convolution's own, so that no kernel runs for it.

ONNX Runtime does this in float files; the QuantizeLinear / DequantizeLinear pair behind a padding hides it
there. Networks converted from TensorFlow pad unevenly ("same"), which PyTorch's convolutions cannot express
and ONNX's can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, NodeProto, helper, numpy_helper


def merge_pads(proto: ModelProto) -> int:
    """Move spatial zero paddings into the convolutions behind them, in place.

    Returns:
        How many paddings went.
    """
    graph = proto.graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constants |= {
        n.output[0]: numpy_helper.to_array(n.attribute[0].t)
        for n in graph.node
        if n.op_type == "Constant" and n.attribute[0].name == "value"
    }
    merged = 0
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        pad = _padding_behind(conv, makers)
        sizes = None if pad is None else _spatial_zeros(pad, constants)
        if pad is None or sizes is None or _pads_itself(conv):
            continue
        _widen(conv, sizes)
        conv.input[0] = pad.input[0]
        merged += 1
    if merged:
        drop_unread(proto)
    return merged


def _padding_behind(conv: NodeProto, makers: dict[str, NodeProto]) -> NodeProto | None:
    """The Pad that feeds ``conv``, directly or through a QuantizeLinear / DequantizeLinear pair."""
    node = makers.get(conv.input[0])
    for op in ("DequantizeLinear", "QuantizeLinear"):
        if node is not None and node.op_type == op:
            node = makers.get(node.input[0])
    return node if node is not None and node.op_type == "Pad" else None


def _pads_itself(conv: NodeProto) -> bool:
    return any(a.name == "auto_pad" and a.s != b"NOTSET" for a in conv.attribute)


def zero_padding(pad: NodeProto, constants: Mapping[str, object]) -> tuple[list[int], list[int]] | None:
    """Zeros that a Pad adds before and after each axis; ``None`` for other values or modes, cuts and axes."""
    mode = next((a.s.decode() for a in pad.attribute if a.name == "mode"), "constant")
    inputs = [*pad.input, "", "", ""][:4]
    if mode != "constant" or inputs[1] not in constants or inputs[3]:
        return None
    if inputs[2] and (inputs[2] not in constants or float(_flat(constants[inputs[2]])[0]) != 0):
        return None
    sizes = [int(v) for v in _flat(constants[inputs[1]])]
    half = len(sizes) // 2
    return None if min(sizes) < 0 else (sizes[:half], sizes[half:])


def _spatial_zeros(pad: NodeProto, constants: Mapping[str, object]) -> list[int] | None:
    """Begins and ends of each spatial axis; ``None`` where other axes, other values or cuts are involved."""
    zeros = zero_padding(pad, constants)
    if zeros is None or any(zeros[0][:2]) or any(zeros[1][:2]):
        return None
    return zeros[0][2:] + zeros[1][2:]


def _flat(value: object) -> Sequence[float]:
    flat: Sequence[float] = value.reshape(-1).tolist()  # type: ignore[attr-defined]
    return flat


def _widen(conv: NodeProto, sizes: list[int]) -> None:
    own = next((list(a.ints) for a in conv.attribute if a.name == "pads"), [0] * len(sizes))
    for attribute in [a for a in conv.attribute if a.name == "pads"]:
        conv.attribute.remove(attribute)
    total = [a + b for a, b in zip(own, sizes, strict=True)]
    conv.attribute.append(helper.make_attribute("pads", total))


def drop_unread(proto: ModelProto) -> None:
    """Delete nodes and initializers that nothing reads any more."""
    graph = proto.graph
    while True:
        read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
        idle = [node for node in graph.node if not any(output in read for output in node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)
