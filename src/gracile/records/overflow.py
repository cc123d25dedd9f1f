"""How wide the accumulators of a quantized model must be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerAccumulator:
    """Sums of one layer: ``products`` terms each, and a bias.

    ``seen`` and ``worst`` are the smallest and the largest sum, on data and for any input on the grid;
    ``seen_bits`` and ``worst_bits`` hold them; ``beyond`` says for each width what share of the sums on data
    it does not hold.
    """

    layer: str
    products: int
    seen: tuple[int, int]
    worst: tuple[int, int]
    seen_bits: int
    worst_bits: int
    beyond: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class PairOverflow:
    """A layer in ``channels`` of whose ``of`` output channels two 8-bit products may exceed 16 bits."""

    layer: str
    channels: int
    of: int


@dataclass(frozen=True, kw_only=True)
class OverflowReport:
    """Accumulators of every layer, over ``images`` inputs."""

    images: int
    layers: tuple[LayerAccumulator, ...]

    @property
    def bits(self) -> int:
        """Fewest bits in which no layer can overflow, whatever the input."""
        return max((layer.worst_bits for layer in self.layers), default=1)

    def __str__(self) -> str:
        lines = [f"accumulators on {self.images} inputs; no input needs more than {self.bits} bits"]
        for layer in self.layers:
            lost = ", ".join(f"{bits} bits: {100 * share:.3g} %" for bits, share in layer.beyond if share)
            lines.append(
                f"  {layer.layer}: {layer.products} products, {layer.seen_bits} bits seen, "
                f"{layer.worst_bits} at worst{f'; beyond {lost}' if lost else ''}"
            )
        return "\n".join(lines)
