"""All values that one scale and shift reaches, and the layers around them that would have to take it in.

Source: Yvinec, Dapogny and Bailly, "To fold or not to fold: a necessary and sufficient condition on
batch-normalization layers folding", IJCAI 2022, arXiv 2203.14646: whether a norm folds is decided by what the
paths around it end at. Where we differ: it is decided channel by channel and for both sides, so that a norm
behind a concatenation can go partly into what comes before and partly into what comes after; norms that stay
take in, too; and shifts are followed on their own, since of a sum only one summand takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from gracile.graph.rules import bound, packet, shape_of

from .paths import Index, Place, Stop, Tie, shares_of, step, users, wording


@dataclass(frozen=True)
class Norm:
    """A norm, or a module that scales and shifts: what it reads, its first and last operation."""

    name: str
    reads: fx.Node
    enters: fx.Node
    leaves: fx.Node
    axis: int = 1

    @property
    def channels(self) -> int:
        """How many."""
        return shape_of(self.reads)[self.axis]


@dataclass(frozen=True)
class Site:
    """What the captured graph holds: layers and norms that can take in, by their node, and why others cannot.

    ``gone``: norms that are identities by now, by their first operation.
    """

    layers: Mapping[fx.Node, str]
    norms: Mapping[fx.Node, str]
    refused: Mapping[fx.Node, str]
    gone: dict[fx.Node, Norm] = field(default_factory=dict)

    def left_by(self, node: fx.Node) -> Norm | None:
        """The norm that was, whose last operation a node is."""
        return next((norm for norm in self.gone.values() if norm.leaves is node), None)


@dataclass(frozen=True)
class End:
    """A layer at the rim of a region: it gives (``out``) or reads (``in``) the place."""

    layer: str
    side: str
    place: Place


@dataclass
class Region:
    """``classes``: for each place the norm's channel that each of its entries belongs to, -1 for none."""

    norm: Norm
    forward: bool
    classes: dict[Place, Index] = field(default_factory=dict)
    ends: dict[End, None] = field(default_factory=dict)
    stopped: dict[int, str] = field(default_factory=dict)
    positive: set[int] = field(default_factory=set)

    @property
    def start(self) -> Place:
        """Where the norm's channels are the classes."""
        return (self.norm.leaves if self.forward else self.norm.reads), self.norm.axis


def flood(site: Site, norm: Norm, *, forward: bool, channels: Index | None = None) -> Region:
    """The region before a norm, or behind it.

    Args:
        site: What the graph holds.
        norm: The norm that would go.
        forward: The region behind it.
        channels: Only these; all by default.
    """
    region = Region(norm, forward)
    first = np.full(norm.channels, -1)
    chosen = np.arange(norm.channels) if channels is None else channels
    first[chosen] = chosen
    region.classes[region.start] = first
    queue = deque([region.start])
    steps: dict[Place, list[Any]] = {}
    while queue:
        place = queue.popleft()
        if place not in steps:
            steps[place] = list(_around(site, region, place))
        for found in steps[place]:
            if isinstance(found, End):
                region.ends[found] = None
            elif isinstance(found, Stop):
                here = region.classes[place] if found.here is None else region.classes[place][found.here]
                for channel in np.unique(here[here >= 0]).tolist():
                    region.stopped.setdefault(channel, found.why)
            elif _pass(region, place, found):
                queue.append(found.other)
    return region


def _pass(region: Region, place: Place, tie: Tie) -> bool:
    """Carry classes over a tie; whether there was anything new."""
    node, axis = tie.other
    target = region.classes.setdefault(tie.other, np.full(shape_of(node)[axis], -1))
    given = region.classes[place][tie.here]
    mine = given >= 0
    if tie.positive:
        region.positive.update(given[mine].tolist())
    at, given = tie.there[mine], given[mine]
    clash = (target[at] >= 0) & (target[at] != given)
    for channel in {*given[clash].tolist(), *target[at][clash].tolist()}:
        region.stopped.setdefault(channel, "a place where its channels meet one another")
    fresh = target[at] < 0
    target[at[fresh]] = given[fresh]
    return bool(fresh.any())


def _around(site: Site, region: Region, place: Place) -> list[Tie | Stop | End]:
    """Ties, stops and ends at the operation that gives a place and at those that read it."""
    node, axis = place
    found: list[Tie | Stop | End] = []
    if not (region.forward and place == region.start):
        found += _given(site, region, place)
    for user in users(node):
        if user is region.norm.enters:
            if region.forward or place != region.start:
                found.append(Stop("a sum with what it normalises"))
        elif user in site.gone and site.gone[user].reads is node and site.gone[user].axis == axis:
            found.append(_same(place, site.gone[user].leaves))
        elif user.op != "call_function":
            found.append(Stop(wording(user)))
        elif user in site.layers or user in site.norms:
            layer = site.layers.get(user) or site.norms[user]
            fits = bound(user)["input"] is node and axis == channel_axis(user, node)
            found.append(End(layer, "in", place) if fits else Stop(f"{layer}, along another axis"))
        else:
            found += [Stop(site.refused[user])] if user in site.refused else step(user, place)
    return found


def _given(site: Site, region: Region, place: Place) -> list[Tie | Stop | End]:
    node, axis = place
    before = site.left_by(node)
    if node is region.norm.leaves:
        return [Stop("a sum with what it normalises")]
    if before is not None and before.axis == axis:
        return [_same(place, before.reads)]
    if node.op != "call_function":
        return [Stop(site.refused.get(node, wording(node)))]
    if node in site.layers or node in site.norms:
        layer = site.layers.get(node) or site.norms[node]
        fits = axis == channel_axis(node, node)
        return [End(layer, "out", place) if fits else Stop(f"{layer}, along another axis")]
    return [Stop(site.refused[node])] if node in site.refused else list(step(node, place))


def channel_axis(op: fx.Node, value: fx.Node) -> int:
    """The axis of an input or output of a layer or norm that its channels run along."""
    return len(shape_of(value)) - 1 if packet(op) == "linear" else 1


def _same(place: Place, other: fx.Node) -> Tie:
    every = np.arange(shape_of(place[0])[place[1]])
    return Tie((other, place[1]), every, every)


def shares(site: Site, region: Region, given: Mapping[Place, Index]) -> dict[Place, Index] | None:
    """The shift of every place, as a multiple of that of the norm; ``None`` where it varies within a channel.

    Args:
        site: What the graph holds.
        region: The values.
        given: Shifts that layers give to what they write; none is zero.
    """
    wrote = {end.place for end in region.ends if end.side == "out"}
    nodes = {node: i for i, node in enumerate(region.norm.enters.graph.nodes)}
    found: dict[Place, Index] = {}
    for place in sorted(region.classes, key=lambda p: (nodes[p[0]], p[1])):
        mine = region.classes[place] >= 0
        before = site.left_by(place[0])
        value: Index | None = np.zeros(len(mine))
        if not mine.any():
            pass
        elif region.forward and place == region.start:
            value = np.ones(len(mine))
        elif place in wrote:
            value = given.get(place, value)
        elif before is not None:
            value = found[before.reads, place[1]]
        else:
            value = shares_of(place[0], place[1], found)
        if value is None:
            return None
        found[place] = np.where(mine, value, 0)
    return found


def settled(site: Site, region: Region, latest: bool) -> dict[Place, Index] | None:
    """Shifts of all places, with the whole shift where the norm reads; ``None`` where there are none.

    Of several layers whose sum the norm reads, the latest (or earliest) takes the shift.
    """
    if region.forward:
        return shares(site, region, {})
    nodes = {node: i for i, node in enumerate(region.norm.enters.graph.nodes)}
    wrote = list({end.place for end in region.ends if end.side == "out"})
    wrote.sort(key=lambda p: -nodes[p[0]] if latest else nodes[p[0]])
    mine = region.classes[region.start]
    missing = mine >= 0
    given: dict[Place, Index] = {}
    for place in wrote if missing.any() else []:
        classes = region.classes[place]
        alone = shares(site, region, {place: (classes >= 0).astype(float)})
        if alone is None:
            continue
        answer = alone[region.start]
        takes = missing & (answer != 0)
        share = np.zeros(len(mine) + 1)
        share[mine[takes]] = 1 / answer[takes]
        given[place] = np.where(classes >= 0, share[classes], 0)
        missing = missing & ~takes
        if not missing.any():
            break
    found = shares(site, region, given)
    whole = found is not None and bool(np.allclose(found[region.start][mine >= 0], 1))
    return found if whole else None
