"""Pruning while a training step runs: masks that grow, or channels that go."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from .masking import MaskPart
from .prune import ChannelsPart

if TYPE_CHECKING:
    from gracile.prune import GradualChannels, GradualMasks, Pace, Schedule

    from ..state import Bench, State


class GradualPart(MaskPart):
    """Prune during the training: masks up to ``sparsity``, or channels down to ``budget``."""

    budget: ChannelsPart | None = None
    """Remove whole channels until this is met, in place of masking weights."""
    initial: float = Field(default=0.0, ge=0, lt=1)
    """Sparsity of the masks at the beginning."""
    schedule: Literal["one_shot", "linear", "cubic", "geometric"] = "cubic"
    """How the sparsity grows between the beginning and the end."""
    rounds: int | None = Field(default=None, ge=1)
    """Grow in so many equal rounds, the first at once, and train in between."""
    begin: float = Field(default=0.0, ge=0)
    """Epochs before it begins."""
    end: float | None = Field(default=None, ge=0)
    """Epochs after which the final sparsity is reached; three quarters of the training when empty."""
    every: float = Field(default=0.25, gt=0)
    """Epochs between two steps of the growth."""

    @model_validator(mode="after")
    def _masks_or_channels(self) -> Self:
        if self.budget is not None and (self.sparsity is not None or self.granularity != "element"):
            raise ValueError("either budget, which removes channels, or sparsity and granularity of masks")
        if self.budget is not None and self.budget.milliseconds is not None:
            raise ValueError("a budget other than milliseconds: widths are not timed while training")
        if self.budget is not None and self.criterion == "gradient":
            raise ValueError("random, l1 or l2 as the criterion of channels")
        if self.budget is None and self.sparsity is None and self.granularity != "n:m":
            raise ValueError("sparsity (masks) or budget (channels removed)")
        if self.end is not None and self.end < self.begin:
            raise ValueError(f"end not before begin ({self.begin:g})")
        return self

    def check_gradual(self, epochs: int) -> None:
        """Refuse fields that do not fit together or the training.

        Raises:
            BadArgument: The growth would end behind the training.
        """
        from gracile.errors import BadArgument

        self.check_masks()
        end = self._end(epochs)
        if not self.begin <= end < epochs:
            do = "Leave some epochs behind it, so that the network can recover."
            raise BadArgument(
                "gradual.end", wanted=f"from begin to below {epochs} epochs", found=f"{end:g}", do=do
            )

    def _end(self, epochs: int) -> float:
        return max(0.75 * epochs, self.begin) if self.end is None else self.end

    def pace(self, epochs: int, steps: int) -> Pace:
        """Epochs as training steps, ``steps`` an epoch."""
        from gracile import prune

        begin, end = round(self.begin * steps), round(self._end(epochs) * steps)
        return prune.Pace(begin=begin, end=max(begin, min(end, epochs * steps - 1)),
                          every=max(round(self.every * steps), 1))  # fmt: skip

    def growth(self) -> Schedule:
        """The schedule as the library's own object."""
        from gracile import prune

        if self.schedule == "geometric":
            kind = self.kind()
            final = self.sparsity or (kind.sparsity if isinstance(kind, prune.NofM) else 0.5)
            shape: Schedule = prune.Geometric(sparsity=final)
        else:
            shape = prune.SCHEDULES[self.schedule]
        return shape if self.rounds is None else prune.Rounds(n=self.rounds, shape=shape)

    def hook(self, state: State, bench: Bench, epochs: int, steps: int) -> GradualMasks | GradualChannels:
        """The training hook; goes on from the masks that the model has already."""
        from gracile import prune
        from gracile.errors import UsageError

        pace, growth = self.pace(epochs, steps), self.growth()
        if self.budget is None:
            return prune.GradualMasks(
                bench.inputs,
                pace=pace,
                sparsity=self.sparsity,
                initial=self.initial,
                schedule=growth,
                granularity=self.kind(),
                criterion=self.ranking(),
                scope=self.scope,
                leave=self.leave,
                gradients=partial(self.gradients, bench=bench),
                previous=state.masks,
                seed=bench.seed,
            )
        if state.masks is not None:
            do = "Move `sparsify` behind the training that removes channels."
            raise UsageError("gradual.budget", wanted="a model without masks", found="masks", do=do)
        return prune.GradualChannels(
            bench.inputs,
            pace=pace,
            budget=self.budget.value(),
            schedule=growth,
            criterion=prune.CRITERIA[self.criterion](),
            leave=self.leave,
            seed=bench.seed,
        )
