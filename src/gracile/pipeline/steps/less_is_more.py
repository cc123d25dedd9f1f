"""Settings of a reduction during training, beside the other fields of ``train`` and ``tune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ..schema import Part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gracile.prune import LessIsMore, Threshold


class LessIsMorePart(Part):
    """Shrink every channel's weights while training and remove the channels that reach zero."""

    ratio: float | None = Field(default=None, gt=0, lt=1)
    """What every norm loses, as a share of its layer's largest; 0.1 when ``tau`` is empty too."""
    tau: float | None = Field(default=None, gt=0)
    """What every norm loses, as a number."""
    every: int = Field(default=2, ge=1)
    """Epochs from one reduction to the next; steps with ``by_step``."""
    start: int = Field(default=1, ge=1)
    """First epoch (or step) that may end with a reduction."""
    stop: int | None = Field(default=None, ge=1)
    """Last epoch (or step) that may; three quarters of the epochs when empty."""
    reversed: bool = False
    """Group the weights that read a channel instead of those that write it."""
    phase: int | None = Field(default=None, ge=1)
    """Reduce one layer after the other, each for so many epochs; all at once when empty."""
    by_step: bool = False
    """Count steps instead of epochs."""
    leave: tuple[str, ...] = ()
    """Layers left alone: ``first``, ``last`` or dotted names."""
    carry_constants: bool = True
    """Put what a removed channel emits into the next bias."""

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.ratio is not None and self.tau is not None:
            raise ValueError("ratio or tau, not both")
        return self

    def hook(
        self, model: nn.Module, inputs: tuple[Tensor, ...], *, epochs: int, steps: int, seed: int
    ) -> LessIsMore:
        """The training hook that these settings mean, for ``epochs`` epochs of ``steps`` steps."""
        from gracile import prune

        threshold: Threshold = prune.Relative(ratio=0.1 if self.ratio is None else self.ratio)
        if self.tau is not None:
            threshold = prune.Absolute(tau=self.tau)
        whole = epochs * (steps if self.by_step else 1)
        return prune.LessIsMore(
            model,
            inputs,
            threshold=threshold,
            stop=self.stop if self.stop is not None else max(whole * 3 // 4, 1),
            seed=seed,
            **self.model_dump(exclude={"ratio", "tau", "stop"}),
        )
