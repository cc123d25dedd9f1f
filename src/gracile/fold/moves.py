"""Norms that do not stand right behind a layer: where they go, as plain data.

Of the channels of a norm each goes backward or forward (:mod:`gracile.fold.region`). What is cheapest is
taken: no border maps before few, then few layers before many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, fx, nn

from gracile.graph import Captured
from gracile.graph.rules import bound, packet, shape_of
from gracile.nn import parts_of
from gracile.records import FoldMove, FoldPart

from .absorb import SMALLEST, BatchNorm, Convolution, divides, pads_zeros, takes_shift
from .paths import LAYERS, Index
from .region import End, Norm, Region, Site, flood, settled

_AFFINE = {"mul", "add", "sub", "div", "addcmul"}
_SHAPING = {"view", "reshape", "unsqueeze", "alias", "detach"}


def survey(captured: Captured, model: nn.Module) -> Site:
    """Layers and norms of a captured model that can take a scale and shift in."""
    layers: dict[fx.Node, str] = {}
    norms: dict[fx.Node, str] = {}
    refused: dict[fx.Node, str] = {}
    for node in captured.graph.nodes:
        if captured.param_of(node) is not None or captured.constant_of(node) is not None:
            refused[node] = "a constant"
        if node.op != "call_function" or packet(node) not in {*LAYERS, "batch_norm"}:
            continue
        name, why = owner(captured, model, node)
        if why:
            refused[node] = why
        else:
            (norms if packet(node) == "batch_norm" else layers)[node] = name
    return Site(layers, norms, refused)


def owner(captured: Captured, model: nn.Module, node: fx.Node) -> tuple[str, str]:
    """Name of the layer or norm that a node is, and why it cannot take anything in or go, "" where it can."""
    args = bound(node)
    is_norm = packet(node) == "batch_norm"
    key = args["running_mean"] if is_norm else args["weight"]
    held = captured.param_of(key) if key is not None else None
    name = held.rpartition(".")[0] if held else captured.module_of(node)
    name = name or node.name
    module = module_of(model, name)
    if is_norm:
        if args["training"] or held is None:
            return name, "it normalises by the batch at hand"
        if not isinstance(module, BatchNorm):
            return name, "it is not a batch-norm module"
        return name, "" if _alone(key, args["weight"], args["bias"]) else "it runs more than once"
    if held is None or not held.endswith("weight") or not isinstance(module, Convolution | nn.Linear):
        return name, f"the weights of {name} are computed, or not those of a layer"
    if not _alone(key, args["bias"]):
        return name, f"{name} runs more than once, or shares its parameters"
    if packet(node) != "linear" and len(shape_of(node)) != len(shape_of(key)):
        return name, f"{name} has no axis of images"
    return name, ""


def _alone(*parameters: object) -> bool:
    return all(len(p.users) == 1 for p in parameters if isinstance(p, fx.Node))


def module_of(model: nn.Module, name: str) -> nn.Module | None:
    """The module of that name, if there is one."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def scales(captured: Captured, model: nn.Module) -> list[Norm]:
    """Modules that only multiply and add numbers of their own, channel by channel, once.

    Example:
        >>> import torch
        >>> from gracile.graph import capture
        >>> class Scale(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        ...     def forward(self, x):
        ...         return x * self.gamma
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), Scale())
        >>> [n.name for n in scales(capture(net, (torch.zeros(1, 3, 2, 2),)), net)]
        ['1']
    """
    inside: dict[str, list[fx.Node]] = {}
    for node in captured.graph.nodes:
        if node.op == "call_function" and captured.module_of(node):
            inside.setdefault(captured.module_of(node), []).append(node)
    found = [_scale(captured, model, name, nodes) for name, nodes in inside.items()]
    return [norm for norm in found if norm is not None]


def _scale(captured: Captured, model: nn.Module, name: str, nodes: list[fx.Node]) -> Norm | None:
    module = module_of(model, name)
    if module is None or list(module.children()) or not list(module.parameters()):
        return None
    own: set[fx.Node] = set()  # computed from parameters alone
    reads: list[fx.Node] = []
    chain: list[fx.Node] = []
    for node in nodes:
        inputs = node.all_input_nodes
        held = [n for n in inputs if n in own or (captured.param_of(n) or "").startswith(f"{name}.")]
        if any(n.op == "placeholder" and len(n.users) != 1 for n in held):
            return None
        if len(held) == len(inputs) and packet(node) in _SHAPING:
            own.add(node)
            continue
        rest = [n for n in inputs if n not in held]
        if packet(node) not in _AFFINE or len(rest) != 1 or (packet(node) == "div" and node.args[0] in held):
            return None
        if chain and (rest[0] is not chain[-1] or len(rest[0].users) != 1):
            return None
        chain.append(node)
        reads = reads or rest
    if not chain or shape_of(chain[-1]) != shape_of(reads[0]):
        return None
    axis = _axis(
        [shape_of(n) for c in chain for n in c.all_input_nodes if n not in (*chain, *reads)], reads[0]
    )
    return None if axis is None else Norm(name, reads[0], chain[0], chain[-1], axis)


def _axis(shapes: list[tuple[int, ...]], value: fx.Node) -> int | None:
    """The only axis of a value that tensors run along, counted from its start."""
    axes = {i - len(shape) for shape in shapes for i, size in enumerate(shape) if size > 1}
    if len(axes) != 1 or not shapes:
        return None
    axis = len(shape_of(value)) + axes.pop()
    return axis if axis > 0 else None


@dataclass(frozen=True)
class Refusal:
    """Why a norm stays."""

    why: str


def find_move(site: Site, norm: Norm, model: nn.Module, scale: Tensor) -> FoldMove | Refusal:
    """Where a norm goes, or why it stays.

    Args:
        site: Layers, norms and norms that have gone.
        norm: The norm.
        model: As it is by now.
        scale: Of the norm, by channel.
    """
    back, ahead = (_reach(site, norm, forward, scale) for forward in (False, True))
    torn = sorted(set(back.stopped) & set(ahead.stopped))
    if torn:
        at = torn[0]
        return Refusal(f"before it stands {back.stopped[at]}, behind it {ahead.stopped[at]}")
    every = np.arange(norm.channels)
    splits = [
        [c for c in every if c not in back.stopped],  # backward as far as possible
        [c for c in every if c in ahead.stopped],  # forward as far as possible
    ]
    whys: list[str] = []
    best: list[FoldPart] | None = None
    for backward in {tuple(split): None for split in splits}:
        for latest in (True, False):
            parts = _parts(site, norm, model, np.array(backward, dtype=np.int64), scale, latest)
            if isinstance(parts, str):
                whys.append(parts)
            elif best is None or _price(parts) < _price(best):
                best = parts
    if best is None:
        return Refusal(whys[0])
    return FoldMove(
        norm=norm.name, parts=tuple(best), channels=norm.channels, axis=norm.axis,
        rank=len(shape_of(norm.reads)),
    )  # fmt: skip


def _price(parts: list[FoldPart]) -> tuple[int, int]:
    return sum(bool(p.space) for p in parts), len({(p.layer, p.side) for p in parts})


def _reach(site: Site, norm: Norm, forward: bool, scale: Tensor, channels: Index | None = None) -> Region:
    """A region, with scales that may not be passed on or divided by stopped, too."""
    region = flood(site, norm, forward=forward, channels=channels)
    largest = float(scale.abs().max())
    for channel in region.positive:
        if float(scale[channel]) <= 0:
            region.stopped.setdefault(channel, "a maximum, which a scale below zero does not pass")
    for end in region.ends:
        if divides(FoldPart(layer="", side=end.side, start=0, count=0, channel=0, undo=forward)):
            classes = region.classes[end.place]
            for channel in np.unique(classes[classes >= 0]).tolist():
                if abs(float(scale[channel])) <= SMALLEST * largest:
                    region.stopped.setdefault(channel, "a path on which a scale of zero cannot be undone")
    return region


def _parts(
    site: Site, norm: Norm, model: nn.Module, backward: Index, scale: Tensor, latest: bool
) -> list[FoldPart] | str:
    """What each layer takes, or why it cannot be."""
    ahead = np.setdiff1d(np.arange(norm.channels), backward)
    regions = [
        _reach(site, norm, forward, scale, channels)
        for forward, channels in ((False, backward), (True, ahead))
        if len(channels)
    ]
    if len(regions) == 2 and _overlap(*regions):
        return "channels that would go both ways meet"
    parts: list[FoldPart] = []
    for region in regions:
        if region.stopped:
            return next(iter(region.stopped.values()))
        found = settled(site, region, latest)
        if found is None:
            return "the shift would differ within a channel"
        for end in region.ends:
            runs = _runs(region.classes[end.place], found[end.place], end, region.forward)
            fitted = [_fitted(run, model, end) for run in runs]
            for run in fitted:
                if isinstance(run, str):
                    return run
                parts.append(run)
    return parts


def _overlap(one: Region, other: Region) -> bool:
    both = one.classes.keys() & other.classes.keys()
    return any(bool(((one.classes[p] >= 0) & (other.classes[p] >= 0)).any()) for p in both)


def _fitted(run: FoldPart, model: nn.Module, end: End) -> FoldPart | str:
    """The part with its border, or why its layer cannot take it."""
    layer = model.get_submodule(run.layer)
    if run.side == "out" or not run.share or isinstance(layer, BatchNorm):
        return run
    if not takes_shift(layer):
        return f"a shift of what {run.layer}, a transposed convolution, reads differs by position"
    if not pads_zeros(layer):
        return run
    if len(parts_of(layer)) != len(layer._modules) or not isinstance(
        layer, nn.Conv1d | nn.Conv2d | nn.Conv3d
    ):
        return f"{run.layer} pads with zeros, which a shift would move"
    return FoldPart(**{**vars(run), "space": shape_of(end.place[0])[2:]})


def _runs(classes: Index, share: Index, end: End, undo: bool) -> list[FoldPart]:
    """Runs of entries whose channels follow one another."""
    found: list[FoldPart] = []
    at, size = 0, len(classes)
    while at < size:
        if classes[at] < 0:
            at += 1
            continue
        first = stop = int(at)
        while stop < size and classes[stop] == classes[first] and share[stop] == share[first]:
            stop += 1
        repeat = stop - first
        while stop < size and share[stop] == share[first]:
            wanted = classes[first] + (stop - first) // repeat
            if classes[stop] != wanted:
                break
            stop += 1
        found.append(
            FoldPart(
                layer=end.layer, side=end.side, start=first, count=stop - first,
                channel=int(classes[first]), repeat=repeat, share=float(share[first]), undo=undo,
            )
        )  # fmt: skip
        at = stop
    return found
