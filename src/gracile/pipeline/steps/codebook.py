"""Let the weights of each layer share a few values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..schema import Step

if TYPE_CHECKING:
    from gracile.quantize import Clustering

    from ..state import Bench, Outcome, State


class CodebookStep(Step):
    """Give the weights of each layer at most 2^bits values by k-means; zeros stay. An archive gets small."""

    step: Literal["codebook"] = "codebook"
    bits: int = Field(default=4, ge=1, le=8)
    bias_bits: int | None = Field(default=None, ge=1, le=8)
    """Bits of biases and other vectors; they stay as they are when empty."""
    start: Literal["linear", "density", "random"] = "linear"
    """Where centroids begin."""
    layers: dict[str, int] = Field(default_factory=dict)
    """Bits by layer name or pattern; the last that fits counts."""
    calibration: int = Field(default=256, ge=0)
    """Unlabelled training images on which layers keep their outputs; 0 for plain k-means."""

    def check(self) -> None:
        """Refuse what the library refuses."""
        self.clustering(seed=0)

    def clustering(self, seed: int) -> Clustering:
        """The fields as the library's own configuration."""
        from gracile import quantize

        return quantize.Clustering(
            start=self.start,
            layers=self.layers,
            bias_bits=self.bias_bits,
            images=max(self.calibration, 1),
            seed=seed,
        )

    def run(self, state: State, bench: Bench) -> Outcome:
        """Find the values and give them to the weights."""
        from dataclasses import replace

        from gracile import quantize

        from ..state import Outcome

        images = bench.calibration(self.calibration) if self.calibration else None
        model, plan = quantize.codebook(
            state.model, bench.inputs, self.bits, calibration=images, clustering=self.clustering(bench.seed)
        )
        return Outcome(
            state=replace(state, model=model.eval()),
            summary=f"{len(plan.layers)} tensors with at most {2**self.bits} values each",
            detail={"values": {entry.param: len(entry.centroids) for entry in plan.layers}},
            skips=plan.skipped,
        )
