"""Which layers bear few bits: each is quantized alone, and the outputs say how much it matters.

Source: Hubara, Nahshan, Hanani, Banner and Soudry, "Accurate post training quantization with small
calibration sets", ICML 2021, arXiv 2006.10518 (its integer program): the loss of a mixed assignment is near
the sum of the losses of its layers alone. Where we differ: the loss is the divergence of the outputs from the
float model's, which needs no labels; weights and activations have curves of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import fx, nn

from gracile.errors import BadArgument
from gracile.nn import ActivationQuantizer, QuantizedBias, QuantizedModel, QuantizedWeight
from gracile.observe import Batch, Calibration, divergence, raw_bytes
from gracile.records import BitCurve, QuantSensitivity, atomic_bytes, from_json, to_json

from ..bits import Bits
from ..calibration import float32_batches
from ..lower import numbers, value_of
from ..ptq import ptq
from ..rounding import Nearest
from ..scheme import W8A8, Scheme
from ..units import Units, find_units

BITS = (8, 7, 6, 5, 4, 3, 2)
_AT_ONCE = 16  # images: all values of the float run are held in memory
Change = Callable[[fx.Interpreter, fx.Node], Any]


def sensitivity(
    model: nn.Module,
    inputs: Batch,
    calibration: Calibration,
    scheme: Scheme = W8A8,
    *,
    bits: Sequence[int] = BITS,
    images: int = 64,
    cache: Path | None = None,
    on_try: Callable[[int, int], None] | None = None,
) -> QuantSensitivity:
    """Quantize the weights of each layer, and each edge, alone at several bits; compare the outputs.

    Args:
        model: The folded float model; it is left as it was.
        inputs: Example inputs, any batch size.
        calibration: Batches of unlabelled inputs.
        scheme: How ranges are found and granularity; its bits and its rounding are not used (weights go to
            the nearest: the order of layers is what counts).
        bits: Bits to try, falling.
        images: Inputs whose outputs are compared, the first of the calibration.
        cache: JSON file of the curves; a call with the same weights, data and choices reads it.
        on_try: Told how many of how many trials are done.

    Raises:
        BadArgument: ``calibration`` is empty, ``bits`` do not fall, or ``images`` is below 1.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = torch.randn(8, 3, 8, 8)
        >>> table = sensitivity(net, (images[:1],), [images], bits=(8, 2))
        >>> [curve.name for curve in table.weights], [curve.readers for curve in table.edges]
        (['0', '3'], [('0',), ('3',)])
        >>> all(curve.at(2) > curve.at(8) for curve in table.weights)
        True
    """
    batches = list(float32_batches(calibration, model, len(inputs)))
    _check(bits, images)
    key = _key(model, batches, scheme, bits, images)
    if (kept := _read(cache, key)) is not None:
        return kept
    judged = _first(batches, images)
    models = {b: ptq(model, inputs, batches, _alone(scheme, b)) for b in bits}
    graph = models[bits[0]].float_graph
    units = find_units(graph)
    names = list(dict.fromkeys(layer.name for layer in units.layers))
    edges = [edge.node for edge in models[bits[0]].plan.edges]
    moved: dict[tuple[str, str], dict[int, float]] = {}
    trials = [*(("weights", name) for name in names), *(("edge", name) for name in edges)]
    for part, batch in enumerate(judged):
        base = fx.Interpreter(graph, garbage_collect_values=False)
        with torch.no_grad():
            wanted = numbers(base.run(*batch))
        for place, (kind, name) in enumerate(trials):
            for b in bits:
                change = _changes(models[b], units, kind, name)
                with torch.no_grad():
                    found = numbers(_Trial(graph, base.env, change).run(*batch))
                points = moved.setdefault((kind, name), dict.fromkeys(bits, 0.0))
                points[b] += max(divergence(wanted, found), 0.0) * len(batch[0])
            if on_try is not None:
                on_try(part * len(trials) + place + 1, len(judged) * len(trials))
    count = sum(len(batch[0]) for batch in judged)
    curves = {one: tuple((b, v / count) for b, v in values.items()) for one, values in moved.items()}
    table = QuantSensitivity(
        metric="kl",
        images=count,
        weights=tuple(_weight_curve(units, name, curves["weights", name]) for name in names),
        edges=tuple(_edge_curve(graph, units, name, curves["edge", name]) for name in edges),
        key=key,
    )
    if cache is not None:
        atomic_bytes(cache, to_json(table))
    return table


def _check(bits: Sequence[int], images: int) -> None:
    if not bits or list(bits) != sorted(set(bits), reverse=True):
        raise BadArgument("bits", wanted="numbers that fall, such as (8, 6, 4)", found=f"{tuple(bits)}")
    if images < 1:
        raise BadArgument("images", wanted="at least 1", found=f"{images=}")


def _alone(scheme: Scheme, bits: int) -> Scheme:
    """The same bits everywhere; only one thing of it is used at a time."""
    return replace(
        scheme,
        weight_bits=bits,
        activation_bits=bits,
        sum_bits=bits,
        ends=Bits(),
        layers={},
        rounding=Nearest(),
        bias_correction=False,
    )


def _first(batches: list[Batch], images: int) -> list[Batch]:
    """The first images, a few at a time."""
    kept, left = [], images
    for batch in batches:
        size = min(len(batch[0]), left)
        for start in range(0, size, _AT_ONCE):
            kept.append(tuple(x[start : min(start + _AT_ONCE, size)] for x in batch))
        left -= size
    return kept


def _changes(model: QuantizedModel, units: Units, kind: str, name: str) -> dict[str, Change]:
    """Node names, and what they give in place of their float value."""
    if kind == "edge":
        quantizer = next(
            m for m in model.network.modules() if isinstance(m, ActivationQuantizer) and m.name == name
        )
        return {name: lambda run, n: quantizer(fx.Interpreter.run_node(run, n))}
    modules = list(model.network.modules())
    weight = next(m for m in modules if isinstance(m, QuantizedWeight) and m.name == name)
    bias = next((m for m in modules if isinstance(m, QuantizedBias) and m.name == name), None)

    def layer(run: fx.Interpreter, n: fx.Node) -> Any:
        args, kwargs = run.fetch_args_kwargs_from_env(n)
        rest = {k: v for k, v in kwargs.items() if k not in ("weight", "bias")}
        own = args[2] if len(args) > 2 else kwargs.get("bias")  # stays in float where ranges are dynamic
        assert callable(n.target)
        return n.target(args[0], weight(), own if bias is None else bias(), *args[3:], **rest)

    return {one.node.name: layer for one in units.layers if one.name == name}


class _Trial(fx.Interpreter):
    """Runs a graph from the first changed node on; what comes before is taken from another run."""

    def __init__(self, graph: fx.GraphModule, known: dict[fx.Node, Any], changes: dict[str, Change]) -> None:
        super().__init__(graph)
        self.changes = changes
        self.known: dict[fx.Node, Any] = {}
        for node in graph.graph.nodes:
            if node.name in changes:
                if node.op == "placeholder":  # arguments are handed out one after the other
                    self.known = {}
                break
            self.known[node] = known[node]

    def run(self, *args: Any, **_: Any) -> Any:
        """The outputs."""
        return super().run(*args, initial_env=dict(self.known))

    def run_node(self, n: fx.Node) -> Any:
        change = self.changes.get(n.name)
        return super().run_node(n) if change is None else change(self, n)


def _weight_curve(units: Units, name: str, points: tuple[tuple[int, float], ...]) -> BitCurve:
    layer = next(layer for layer in units.layers if layer.name == name)
    value = value_of(layer.weight)
    assert value is not None
    return BitCurve(name=name, values=value.numel(), points=points)


def _edge_curve(
    graph: fx.GraphModule, units: Units, name: str, points: tuple[tuple[int, float], ...]
) -> BitCurve:
    node = next(n for n in graph.graph.nodes if n.name == name)
    value = value_of(node)
    assert value is not None
    size = 1
    for extent in value.shape[1:]:
        size *= int(extent)
    readers = tuple(
        dict.fromkeys(layer.name for layer in units.layers if units.carried[layer.source] is node)
    )
    return BitCurve(name=name, values=size, points=points, readers=readers)


def _key(model: nn.Module, batches: list[Batch], scheme: Scheme, bits: Sequence[int], images: int) -> str:
    digest = hashlib.sha256(repr((_alone(scheme, 8), tuple(bits), images)).encode())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in [*tensors, *(("", x) for batch in batches for x in batch)]:
        digest.update(name.encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def _read(cache: Path | None, key: str) -> QuantSensitivity | None:
    """The kept table where it is of the very same analysis."""
    if cache is None or not cache.is_file():
        return None
    try:
        table = from_json(QuantSensitivity, cache.read_bytes())
    except (ValidationError, ValueError):
        return None
    return table if table.key == key else None
