"""Carry the constant that a removed channel still emits into the layers that read it.

Source: Yvinec, Dapogny, Cord and Bailly, "RED: looking for redundancies for data-free structured compression
of deep neural networks", NeurIPS 2021, arXiv 2105.14797 (biases of removed neurons are propagated);
Bragagnolo and Barbano, "Simplify: a Python library for optimizing pruned neural networks", SoftwareX 17
(2022). A channel with weights zero emits ``sigma(b)``; what reads it must receive ``W[:, u] sigma(b)``. Where
we differ: no table of operations. The captured graph is run with the channels' weights at zero, and what the
readers get from them is read off; whatever comes between (activations, pools, flattening) is covered, and a
part that depends on the input is seen and not carried.

With zero padding the part that a border position receives differs; the bias gets the part of the middle
position, and the largest difference is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from gracile.graph import Captured, Provenance, Slot
from gracile.graph.rules import bound, packet
from gracile.records import PrunePlan

from .layers import is_norm, only_user, own, tensors
from .walk import Walk

TOLERANCE = 1e-6  # relative; above it a part counts as depending on the input
Units = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What one layer received. ``into`` names the parameter or statistic that took it, "" where none could.

    ``largest`` is the largest part carried, ``border_error`` the largest difference at positions near a
    padded border, both in units of the layer's output; ``why`` says why nothing was carried.
    """

    layer: str
    into: str
    largest: float
    border_error: float
    why: str = ""


def carry_constants_(
    model: nn.Module, provenance: Provenance, plan: PrunePlan, *, seed: int = 0
) -> tuple[Carried, ...]:
    """Add to biases what removed channels emit when the weights that write them are zero, in place.

    Call it before the removal, on the model of full width. It is exact for channels whose weights are zero;
    of others it keeps what is left of them without their weights (behind a batch norm: its shift, which is
    the channel's mean).

    Args:
        model: The model of full width; its biases, or the running means of batch norms behind layers without
            bias, change.
        provenance: Its traced graph.
        plan: What goes.
        seed: Of the random inputs that show whether a part is constant.

    Returns:
        One record for each layer that reads a removed channel.
    """
    removed = {g.name: np.asarray(g.removed, dtype=np.int64) for g in plan.groups if g.removed}
    slots = [(s, u) for name, u in removed.items() for s in provenance.group(name).slots]
    held = {k: t.detach().clone().cpu() for k, t in tensors(model).items()}
    held = {k: t.double() if t.is_floating_point() else t for k, t in held.items()}
    _silence(provenance.captured, held, slots)
    readers: dict[str, list[np.ndarray]] = {}
    axes: dict[str, int] = {}
    for slot, units in slots:
        if slot.role == "read":
            readers.setdefault(slot.param, []).append(slot.index[units].reshape(-1))
            axes[slot.param] = slot.axis
    captured = provenance.captured
    draw = torch.Generator().manual_seed(seed)
    batches = [tuple(_random(x, draw) for x in captured.inputs) for _ in range(2)]
    walk = Walk(captured, held.__getitem__, batches)
    found: list[tuple[Carried, Tensor | None]] = []
    for node in captured.graph.nodes:
        args = bound(node) if node.op == "call_function" and _weighted(node) else {}
        weight = captured.param_of(args["weight"]) if args else None
        if weight in readers:
            assert weight is not None
            positions = np.unique(np.concatenate(readers[weight]))
            found.append(_part(captured, node, walk, held, weight, axes[weight], positions))
    live = tensors(model)
    with torch.no_grad():
        for carried, part in found:
            if part is not None:
                target = live[carried.into]
                sign = -1.0 if carried.into.endswith("running_mean") else 1.0
                target += sign * part.to(target.device, target.dtype)
    return tuple(c for c, _ in found)


def _weighted(node: fx.Node) -> bool:
    name = packet(node)
    return name == "linear" or name.startswith("conv")


def _random(x: Tensor, draw: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=draw, dtype=torch.float64) if x.is_floating_point() else x


def _silence(captured: Captured, held: dict[str, Tensor], slots: list[tuple[Slot, np.ndarray]]) -> None:
    """Set the weights that write removed channels to zero.

    A batch norm behind them then gives its shift: for weights that were not zero its running mean, which
    counted them, is set to what the layer emits without them.
    """
    alive: dict[str, Tensor] = {}
    for slot, units in slots:
        if slot.role == "write":
            weight = held[slot.param]
            index = torch.from_numpy(slot.index[units].reshape(-1))
            rows = weight.index_select(slot.axis, index).movedim(slot.axis, 0).flatten(1).ne(0).any(1)
            was = alive.setdefault(slot.param, torch.zeros(weight.shape[slot.axis], dtype=torch.bool))
            was[index] |= rows
            weight.index_fill_(slot.axis, index, 0)
    for node in captured.graph.nodes:
        if node.op != "call_function" or not is_norm(node):
            continue
        args = bound(node)
        writer = args["input"]
        if writer.op != "call_function" or not _weighted(writer):
            continue
        wrote, mean = captured.param_of(bound(writer)["weight"]), captured.param_of(args["running_mean"])
        if wrote in alive and mean is not None and alive[wrote].numel() == held[mean].numel():
            bias = bound(writer)["bias"]
            level = held[str(captured.param_of(bias))] if bias is not None else torch.zeros_like(held[mean])
            held[mean] = torch.where(alive[wrote], level, held[mean])


def _part(
    captured: Captured,
    node: fx.Node,
    walk: Walk,
    held: Mapping[str, Tensor],
    weight: str,
    axis: int,
    positions: np.ndarray,
) -> tuple[Carried, Tensor | None]:
    """What the removed input positions give to a layer's output, and where it can go."""
    name = weight.removesuffix(".weight")
    only = torch.zeros_like(held[weight])
    index = torch.from_numpy(positions)
    only.index_copy_(axis, index, held[weight].index_select(axis, index))
    args = bound(node)
    parts = []
    for x in walk(args["input"]):
        call = {**args, "input": x.nan_to_num(), "weight": only, "bias": None}
        with torch.no_grad():
            parts.append(node.target(**call))  # type: ignore[operator]
    given = torch.cat(parts)
    first, largest = given[:1], float(given.abs().max())
    if float((given - first).abs().max()) > TOLERANCE * max(largest, 1e-30):
        why = "what it gets from removed channels depends on the input"
        return Carried(layer=name, into="", largest=largest, border_error=0.0, why=why), None
    rows = first.reshape(-1, first.shape[-1]) if packet(node) == "linear" else first[0].flatten(1).T
    shape = (rows.shape[0],) if packet(node) == "linear" else tuple(first.shape[2:])
    middle = rows[int(np.ravel_multi_index([s // 2 for s in shape], shape))]
    border = float((rows - middle).abs().max())
    into, why = _target(captured, node)
    carried = Carried(layer=name, into=into, largest=largest, border_error=border, why=why)
    if not into:
        return carried, None
    return carried, middle


def _target(captured: Captured, node: fx.Node) -> tuple[str, str]:
    """The bias of a layer, or the running mean of the batch norm behind it; else why there is none."""
    bias = bound(node)["bias"]
    if own(captured, bound(node)["weight"]) is None:
        return "", "the layer runs more than once"
    if bias is not None:
        name = own(captured, bias)
        return (name, "") if name else ("", "its bias is shared")
    norm = only_user(node)
    if norm is not None and is_norm(norm):
        mean = own(captured, bound(norm)["running_mean"])
        if mean is not None:
            return mean, ""
    return "", "it has neither a bias nor a batch norm behind it"
