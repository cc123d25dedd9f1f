"""How many bits each layer gets: the scheme's own, those of the ends, or those of a name pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from torch import fx

from gracile.errors import BadArgument

from .units import Layer, Units


@dataclass(frozen=True, kw_only=True)
class Bits:
    """Bits of some layers; ``None`` leaves the scheme's own.

    Args:
        weights: 1 to 8; 1 bit has to be trained (:mod:`gracile.quantize.qat`).
        activations: Of what the layer reads, likewise.

    Raises:
        BadArgument: A number lies outside 1..8.

    Example:
        >>> Bits(weights=4).or_else(Bits(weights=8, activations=8))
        Bits(weights=4, activations=8)
    """

    weights: int | None = None
    activations: int | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "activations"):
            bits = getattr(self, name)
            if bits is not None and not (isinstance(bits, int) and 1 <= bits <= 8):
                raise BadArgument(name, wanted="a whole number from 1 to 8", found=f"{bits!r}")

    def or_else(self, other: Bits) -> Bits:
        """These bits, and ``other``'s where there are none."""
        return Bits(
            weights=other.weights if self.weights is None else self.weights,
            activations=other.activations if self.activations is None else self.activations,
        )


class Wanted(Protocol):
    """The part of a scheme that says how many bits."""

    @property
    def weight_bits(self) -> int:
        """Of weights."""
        ...

    @property
    def activation_bits(self) -> int:
        """Of what layers read."""
        ...

    @property
    def sum_bits(self) -> int:
        """Of what no layer reads."""
        ...

    @property
    def ends(self) -> Bits:
        """Of the first and last layers."""
        ...

    @property
    def layers(self) -> Mapping[str, Bits]:
        """By name pattern."""
        ...


def layer_bits(units: Units, wanted: Wanted) -> dict[str, tuple[int, int]]:
    """Bits of the weights, and of what is read, of every layer by name.

    Raises:
        BadArgument: A pattern fits no layer; the nearest names are told.
    """
    names = [layer.name for layer in units.layers]
    for pattern in wanted.layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BadArgument(
                "layers",
                wanted="names or patterns of this model's layers",
                found=f"{pattern!r}",
                do=f"Its layers: {', '.join(dict.fromkeys(names))}",
            )
    ends = {layer.name for layer in _ends(units)}
    found = {}
    for name in names:
        own = Bits()
        for pattern, bits in wanted.layers.items():
            own = bits.or_else(own) if fnmatchcase(name, pattern) else own
        if name in ends:
            own = own.or_else(wanted.ends)
        own = own.or_else(Bits(weights=wanted.weight_bits, activations=wanted.activation_bits))
        assert own.weights is not None
        assert own.activations is not None
        found[name] = (own.weights, own.activations)
    return found


def edge_bits(
    units: Units, layers: Mapping[str, tuple[int, int]], wanted: Wanted
) -> dict[fx.Node, dict[str, int]]:
    """Bits of every edge by who reads them.

    Layers get the most that one of them wants, all else ``sum_bits``. What both read has two grids if sums
    want more bits than layers (only inputs of layers are coarse then, as in Li et al., "BRECQ", ICLR 2021,
    arXiv 2102.05426), else one with the bits of the layers.
    """
    asked = dict.fromkeys(units.owners, 0)
    for layer in units.layers:
        owner = units.carried[layer.source]
        asked[owner] = max(asked[owner], layers[layer.name][1])
    shared = units.read_by_others
    found: dict[fx.Node, dict[str, int]] = {}
    for owner, bits in asked.items():
        if bits and owner in shared and wanted.sum_bits > bits:
            found[owner] = {"rest": wanted.sum_bits, "layers": bits}
        else:
            found[owner] = {"all": bits or wanted.sum_bits}
    return found


def _ends(units: Units) -> list[Layer]:
    """Layers with no other layer between them and an input, or an output."""
    if not units.layers:
        return []
    layers = {layer.node: layer for layer in units.layers}
    graph = units.layers[0].node.graph
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    outputs = [n for n in graph.nodes if n.op == "output"]
    first = _reached(inputs, layers, lambda n: n.users)
    last = _reached(outputs, layers, lambda n: n.all_input_nodes)
    return [layer for node, layer in layers.items() if node in first | last]


def _reached(start: list[fx.Node], layers: Mapping[fx.Node, Layer], step: _Step) -> set[fx.Node]:
    """Layers met first on every way from ``start``."""
    seen, met, todo = set(start), set[fx.Node](), list(start)
    while todo:
        for node in step(todo.pop()):
            if node in layers:
                met.add(node)
            elif node not in seen:
                seen.add(node)
                todo.append(node)
    return met


class _Step(Protocol):
    def __call__(self, node: fx.Node, /) -> Iterable[fx.Node]: ...
