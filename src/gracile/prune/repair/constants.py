"""Carry the constant that a removed channel still emits into the layers that read it.

Source: Yvinec, Dapogny, Cord and Bailly, "RED: looking for redundancies for data-free structured compression
of deep neural networks", NeurIPS 2021, arXiv 2105.14797 (biases of removed neurons are propagated);
Bragagnolo and Barbano, "Simplify: a Python library for optimizing pruned neural networks", SoftwareX 17
(2022). A channel with weights zero emits ``sigma(b)``; what reads it must receive ``W[:, u] sigma(b)``. Where
we differ: no table of operations. The captured graph is run with the channels' weights at zero, and what the
readers get from them is read off; whatever comes between (activations, pools, flattening) is covered, and a
part that depends on the input is seen and not carried.

With zero padding the part that a border position receives differs. The bias gets the part of the middle
position, and the largest difference is stated; or a map (:class:`gracile.nn.BorderMap`) gives every position
its own part, which is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from gracile.graph import Captured, Provenance, Slot
from gracile.graph.rules import bound, packet
from gracile.nn import BorderMap, ScatterChannels, attach_, parts_of
from gracile.records import PrunePlan, Rewire
from gracile.surgery.reference import as_worked, recaptured, tensors_of
from gracile.surgery.verify import run

from ..layers import affine, is_norm, is_weighted, only_user, own
from ..walk import Walk

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
Units = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What one layer received. ``into`` names the parameter or statistic that took it, "" where none could.

    ``largest`` is the largest part carried, ``border_error`` the largest difference at positions near a
    padded border, both in units of the layer's output; ``why`` says why nothing was carried. ``at`` names the
    module behind which a border map makes up for that difference, "" where there is none.
    """

    layer: str
    into: str
    largest: float
    border_error: float
    why: str = ""
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A record, and what goes where.

    ``part`` is what the layer's bias takes ``(outputs,)``, ``border`` what is left over as a map of its own,
    whose channels follow the axis ``rows_of`` of a parameter; ``fill`` holds places in a trunk and what a
    scatter adds there.
    """

    carried: Carried
    part: Tensor | None = None
    border: BorderMap | None = None
    rows_of: tuple[str, int] = ("", 0)
    fill: tuple[Tensor, Tensor] | None = None


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
    found = find_constants(model, provenance, plan, borders=False, seed=seed)
    add_(model, found)
    return tuple(c.carried for c in found)


def find_constants(
    model: nn.Module, provenance: Provenance, plan: PrunePlan, *, borders: bool, seed: int = 0
) -> tuple[Constant, ...]:
    """What removed channels emit into each layer that reads them; ``model`` stays as it was.

    Args:
        model: The model of full width.
        provenance: Its traced graph.
        plan: What goes.
        borders: Also work out the map that makes positions near a padded border exact.
        seed: Of the random inputs that show whether a part is constant.
    """
    removed = {g.name: np.asarray(g.removed, dtype=np.int64) for g in plan.groups if g.removed}
    slots = [(s, u) for name, u in removed.items() for s in provenance.group(name).slots]
    rehearsal = _rehearsal(model, provenance.captured, seed)
    captured, held = rehearsal.captured, rehearsal.held
    _silence(captured, held, slots)
    readers: dict[str, list[np.ndarray]] = {}
    axes: dict[str, int] = {}
    for slot, units in slots:
        if slot.role == "read":
            readers.setdefault(slot.param, []).append(slot.index[units].reshape(-1))
            axes[slot.param] = slot.axis
    walk = Walk(captured, held.__getitem__, rehearsal.batches, fit=lambda c: as_worked(c, rehearsal.like))
    found = []
    fills = _fills(model, provenance, captured, removed)
    for node in captured.graph.nodes:
        if node in fills:
            fill = _fill(walk, node, *fills[node], tolerance=rehearsal.tolerance)
            found += [fill] if fill is not None else []
        args = bound(node) if is_weighted(node) else {}
        weight = captured.param_of(args["weight"]) if args else None
        if weight in readers:
            assert weight is not None
            positions = np.unique(np.concatenate(readers[weight]))
            given = _given(node, walk, held, weight, axes[weight], positions)
            found.append(_constant(rehearsal, node, weight, given, borders))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Rehearsal:
    """A graph with numbers of its own and random inputs; all in the type and place of ``like``.

    ``tolerance`` is relative; above it a part counts as depending on the input.
    """

    captured: Captured
    held: dict[str, Tensor]
    batches: list[tuple[Tensor, ...]]
    like: Tensor
    tolerance: float


def _rehearsal(model: nn.Module, captured: Captured, seed: int) -> _Rehearsal:
    """On the CPU and in float64 where the model's code runs in it, else in float32."""
    twin, dtype = copy.deepcopy(model).cpu().double(), torch.float64
    try:
        run(twin, _drawn(captured, seed, dtype)[0])  # a capture does not look whether types agree
    except RuntimeError:  # code that makes float32 tensors of its own
        twin, dtype = twin.float(), torch.float32
    batches = _drawn(captured, seed, dtype)
    return _Rehearsal(
        captured=recaptured(captured, twin, batches[0]),
        held={k: t.detach().clone() for k, t in tensors_of(twin).items()},
        batches=batches,
        like=torch.zeros((), dtype=dtype),
        tolerance=TOLERANCES[dtype],
    )


def _drawn(captured: Captured, seed: int, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """Two batches of random inputs."""
    draw = torch.Generator().manual_seed(seed)
    return [tuple(_random(x, draw, dtype) for x in captured.inputs) for _ in range(2)]


def _fills(
    model: nn.Module, provenance: Provenance, captured: Captured, removed: Units
) -> dict[fx.Node, tuple[Rewire, np.ndarray, Tensor]]:
    """Ends of branches that lose channels: the cut, the channels, and their places in the trunk."""
    found = {}
    for cut in provenance.cuts:
        if cut.kind != "scatter" or cut.group not in removed:
            continue
        gone = provenance.group(cut.group).scored[0].index[removed[cut.group], 0]
        part = parts_of(model.get_submodule(cut.module)).get("scatter")
        places = part.index.cpu() if isinstance(part, ScatterChannels) else torch.arange(cut.size)
        ran = [n for n in captured.graph.nodes if n.op == "call_function"]
        node = [n for n in ran if captured.module_of(n) == cut.module][-1]
        found[node] = (cut, gone, places)
    return found


def _fill(
    walk: Walk, node: fx.Node, cut: Rewire, gone: np.ndarray, places: Tensor, *, tolerance: float
) -> Constant | None:
    """What removed channels of a branch add to the trunk."""
    given = torch.cat(walk(node))[:, torch.from_numpy(gone)].flatten(2)  # (inputs, channels, positions)
    first, largest = given[:1, :, :1], float(given.abs().max())
    if largest == 0 or float((given - first).abs().max()) > tolerance * largest:
        return None
    name = f"{cut.module}.scatter.constant"
    carried = Carried(layer=cut.layer, into=name, largest=largest, border_error=0.0, at=cut.module)
    return Constant(carried=carried, fill=(places[torch.from_numpy(gone)], first.flatten()))


@torch.no_grad()
def add_(model: nn.Module, constants: Sequence[Constant]) -> None:
    """Put the parts into biases and running means, in place."""
    live = tensors_of(model)
    for c in constants:
        if c.part is not None:
            target = live[c.carried.into]
            sign = -1.0 if c.carried.into.endswith("running_mean") else 1.0
            target += sign * c.part.to(target.device, target.dtype)


@torch.no_grad()
def hang_(small: nn.Module, plan: PrunePlan, constants: Sequence[Constant]) -> None:
    """Hang border maps on the narrowed model, without the channels that went, and fill what scatters add."""
    live = tensors_of(small)
    keep = {(s.param, s.axis): list(s.keep) for s in plan.slices}
    for c in constants:
        scatter = parts_of(small.get_submodule(c.carried.at)).get("scatter") if c.fill else None
        if isinstance(scatter, ScatterChannels) and c.fill is not None:
            places, values = (t.to(scatter.table.device) for t in c.fill)
            if scatter.constant is None:
                like = next(t for t in live.values() if t.is_floating_point())
                scatter.constant = like.new_zeros(scatter.table.numel())
            scatter.constant[places] += values.to(scatter.constant)
        if c.border is None:
            continue
        like = live[c.rows_of[0]]
        table = c.border.table.to(like.device, like.dtype)
        border = BorderMap(table[keep[c.rows_of]] if c.rows_of in keep else table, c.border.ends)
        module = small.get_submodule(c.carried.at)
        held = parts_of(module).get("border")
        attach_(module, "border", held.plus(border) if isinstance(held, BorderMap) else border)


def _random(x: Tensor, draw: torch.Generator, dtype: torch.dtype) -> Tensor:
    drawn = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    return drawn.to(dtype) if x.is_floating_point() else x.cpu()


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
        if not is_weighted(writer):
            continue
        wrote, mean = captured.param_of(bound(writer)["weight"]), captured.param_of(args["running_mean"])
        if wrote in alive and mean is not None and alive[wrote].numel() == held[mean].numel():
            bias = bound(writer)["bias"]
            level = held[str(captured.param_of(bias))] if bias is not None else torch.zeros_like(held[mean])
            held[mean] = torch.where(alive[wrote], level, held[mean])


def _given(
    node: fx.Node, walk: Walk, held: Mapping[str, Tensor], weight: str, axis: int, positions: np.ndarray
) -> Tensor:
    """What the removed input positions give to a layer's output, for every random input."""
    only = torch.zeros_like(held[weight])
    index = torch.from_numpy(positions)
    only.index_copy_(axis, index, held[weight].index_select(axis, index))
    args = bound(node)
    parts = []
    for x in walk(args["input"]):
        call = {**args, "input": x.nan_to_num(), "weight": only, "bias": None}
        with torch.no_grad():
            parts.append(node.target(**call))  # type: ignore[operator]
    return torch.cat(parts)


def _constant(rehearsal: _Rehearsal, node: fx.Node, weight: str, given: Tensor, borders: bool) -> Constant:
    """Where what a layer gets can go: a bias or running mean, and the rest into a map."""
    captured, held, tolerance = rehearsal.captured, rehearsal.held, rehearsal.tolerance
    name = weight.removesuffix(".weight")
    first, largest = given[:1], float(given.abs().max())
    if float((given - first).abs().max()) > tolerance * max(largest, 1e-30):
        why = "what it gets from removed channels depends on the input"
        return Constant(carried=Carried(layer=name, into="", largest=largest, border_error=0.0, why=why))
    linear = packet(node) == "linear"
    rows = first.reshape(-1, first.shape[-1]) if linear else first[0].flatten(1).T
    shape = (rows.shape[0],) if linear else tuple(first.shape[2:])
    middle = rows[int(np.ravel_multi_index([s // 2 for s in shape], shape))]
    error = float((rows - middle).abs().max())
    into, why = _target(captured, node)
    left = first[0] if not into or linear else first[0] - middle.view(-1, *[1] * len(shape))
    wanted = borders and not linear and float(left.abs().max()) > tolerance * max(largest, 1e-30)
    at, rows_of, scale = (
        _place(captured, node, held) if wanted and why not in _SEVERAL else ("", ("", 0), None)
    )
    carried = Carried(
        layer=name,
        into=into,
        largest=largest,
        border_error=0.0 if at else error,
        why="" if at else why,
        at=at,
    )
    border = None
    if at:
        left = left if scale is None else left * scale.view(-1, *[1] * len(shape))
        border = BorderMap.of(left, tolerance * float(left.abs().max()))
    return Constant(carried=carried, part=middle if into else None, border=border, rows_of=rows_of)


_SEVERAL = ("the layer runs more than once",)


def _place(
    captured: Captured, node: fx.Node, held: Mapping[str, Tensor]
) -> tuple[str, tuple[str, int], Tensor | None]:
    """Module behind which a map can hang, the parameter axis that its channels follow, and what scales it.

    Behind a batch norm rather than before it, so that the norm still folds into the layer.
    """
    norm, scale, axis = only_user(node), None, 0
    if norm is not None and is_norm(norm):
        rows_of = own(captured, bound(norm)["running_mean"])
        node, scale = norm, affine(captured, norm, held)[0]
    else:
        rows_of = own(captured, bound(node)["weight"])
        axis = int("transpose" in packet(node) and bound(node)["groups"] == 1)
    if rows_of is None or captured.module_of(node) != rows_of.rpartition(".")[0]:
        return "", ("", 0), None
    return captured.module_of(node), (rows_of, axis), scale


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
