"""Which tensor is quantized how: scales and zero points as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from .preparation import Preparation
from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class WeightQuant:
    """Weights of ``layer`` (dotted module name): ``scale`` has one entry, or one per index of ``axis``.

    Real value = scale * (integer - zero_point), integer in ``[qmin, qmax]``. ``bias_shift`` (per output
    channel, or empty) is added to the layer's bias, which is made where there is none. ``moved`` says where
    integers are not the nearest: text for the difference of each, or empty. With ``group``, ``scale`` has one
    entry for each so many input channels (axis 1) of each output channel, output channels outermost.
    """

    layer: str
    bits: int
    qmin: int
    qmax: int
    axis: int | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    bias_shift: tuple[float, ...] = ()
    moved: str = ""
    group: int | None = None


@dataclass(frozen=True, kw_only=True)
class EdgeQuant:
    """Values produced by graph node ``node`` (name in the captured graph), per tensor.

    ``readers`` says who reads this grid: ``all``; or, where a node has two, ``layers`` (convolutions and
    linear layers) and ``rest`` (sums, products, averages, outputs). The one for layers lies behind the other.
    """

    node: str
    bits: int
    qmin: int
    qmax: int
    scale: float
    zero_point: int
    readers: str = "all"

    @property
    def name(self) -> str:
        """Name of the quantizer: the node's, with ``:layers`` behind it for a second grid."""
        return f"{self.node}:layers" if self.readers == "layers" else self.node


@dataclass(frozen=True, kw_only=True)
class DynamicQuant:
    """Values of graph node ``node``, as layers read them: the grid spans each batch's own extremes."""

    node: str
    bits: int


@dataclass(frozen=True, kw_only=True)
class QuantPlan:
    """A quantization of the folded, captured model: activations by ``edges``, or by ``dynamic``.

    ``prepared`` is what was done to the captured model before.
    """

    weights: tuple[WeightQuant, ...]
    edges: tuple[EdgeQuant, ...]
    estimator: str = ""
    skipped: tuple[Skipped, ...] = ()
    dynamic: tuple[DynamicQuant, ...] = ()
    prepared: Preparation = field(default_factory=Preparation)

    @property
    def activation_bits(self) -> set[int]:
        """Every number of bits that some activation has."""
        return {edge.bits for edge in self.edges} | {entry.bits for entry in self.dynamic}

    @property
    def reduced(self) -> tuple[str, ...]:
        """Layers of 8 bits whose weights take half the range, so that sums of two products fit 16 bits."""
        return tuple(w.layer for w in self.weights if w.bits == 8 and w.qmax < 2**6)

    @property
    def own_grids(self) -> dict[str, EdgeQuant]:
        """Node to the grid that its values are rounded to first."""
        return {edge.node: edge for edge in self.edges if edge.readers != "layers"}

    @property
    def layer_grids(self) -> dict[str, EdgeQuant]:
        """Node to the grid that layers read it on."""
        return {edge.node: edge for edge in self.edges if edge.readers != "rest"}
