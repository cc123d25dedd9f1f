"""Layers left alone: the first, the last, and those named."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from gracile.errors import BadArgument
from gracile.graph import Captured, Group
from gracile.graph.rules import bound
from gracile.records import Skipped

from .layers import is_weighted


def split_left(
    captured: Captured, groups: Sequence[Group], leave: Iterable[str]
) -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    """Separate groups that may shrink from those left alone.

    A layer is left alone when it keeps its outputs: every group that it writes stays whole.

    Args:
        captured: The model.
        groups: Its groups.
        leave: ``"first"`` and ``"last"`` (the first and last convolution or linear layer that runs), names of
            groups, layers or parts of the model, or patterns of them (``"layer1.*"``).

    Returns:
        Groups that may shrink, and for each of the others why it stays.

    Raises:
        BadArgument: A name fits nothing.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
        >>> captured = capture(net, (torch.zeros(1, 4),))
        >>> free, left = split_left(captured, trace(captured).groups, ("first", "last"))
        >>> [g.name for g in free], [(s.where, s.why) for s in left]
        (['1'], [('0', 'left alone: first (0)')])
    """
    layers = weighted_layers(captured)
    reasons: dict[str, str] = {}
    for name in leave:
        hits = _named(name, layers, groups)
        for group in groups:
            found = sorted(hits & {group.name, *_writers(group)})
            if found and group.name not in reasons:
                reasons[group.name] = f"left alone: {name}" + ("" if found[0] == name else f" ({found[0]})")
    return (
        tuple(g for g in groups if g.name not in reasons),
        tuple(Skipped(g.name, reasons[g.name]) for g in groups if g.name in reasons),
    )


def left_layers(captured: Captured, leave: Iterable[str]) -> dict[str, str]:
    """Layers that ``leave`` means, each with the reason; for what goes by layers and not by groups.

    Raises:
        BadArgument: A name fits nothing.

    Example:
        >>> import torch
        >>> from gracile.graph import capture
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
        >>> left_layers(capture(net, (torch.zeros(1, 4),)), ("last", "1"))
        {'2': 'left alone: last', '1': 'left alone: 1'}
    """
    layers = weighted_layers(captured)
    found: dict[str, str] = {}
    for name in leave:
        for layer in sorted(_named(name, layers, ())):
            found.setdefault(layer, f"left alone: {name}")
    return found


def weighted_layers(captured: Captured) -> tuple[str, ...]:
    """Convolutions and linear layers by dotted name, in the order in which they first run."""
    names: dict[str, None] = {}
    for node in captured.graph.nodes:
        if is_weighted(node):
            param = captured.param_of(bound(node)["weight"])
            if param is not None:
                names[param.removesuffix(".weight")] = None
    return tuple(names)


def _writers(group: Group) -> set[str]:
    return {s.param.removesuffix(".weight") for s in group.writers}


def _named(name: str, layers: Sequence[str], groups: Sequence[Group]) -> set[str]:
    """Names of layers and groups that a word of ``leave`` means."""
    if name in ("first", "last"):
        return {layers[0 if name == "first" else -1]} if layers else set()
    every = {*layers, *(g.name for g in groups)}
    hits = {n for n in every if fnmatch.fnmatchcase(n, name) or n.startswith(name + ".")}
    if not hits:
        raise BadArgument(
            "leave",
            wanted="'first', 'last', or names or patterns of layers",
            found=f"{name!r}, which fits none of {len(layers)} layers",
            do="List the layers with `gracile inspect`.",
        )
    return hits
