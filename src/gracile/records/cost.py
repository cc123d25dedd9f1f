"""Cost counted from structure: an estimate by formula, never a measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One operation with weights. ``macs`` are multiply-adds for the captured batch; ``params`` counts
    every parameter element of the module, each once."""

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    params: int
    activation_bytes: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Totals for one image (batch 1): ``macs`` multiply-adds of convolutions, linear layers and matrix
    products; ``params`` trainable parameter elements; ``activation_bytes`` the sum of all operation
    outputs; ``peak_activation_bytes`` the most alive at once in graph order."""

    macs: int
    params: int
    activation_bytes: int
    peak_activation_bytes: int
    layers: tuple[LayerCost, ...] = ()
