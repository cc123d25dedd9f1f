"""What happened in training, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch. Losses are in nats, accuracies in percent, ``lr`` is that of the epoch's last step.

    ``train_*`` were measured while the weights changed, on augmented images; ``holdout_*`` afterwards, None
    without a held-out part.
    """

    epoch: int
    steps: int
    lr: float
    train_loss: float
    train_accuracy: float
    holdout_loss: float | None
    holdout_accuracy: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class History:
    """A whole run. ``best_epoch`` counts from 1 and names the epoch whose weights were kept.

    ``resumed_after`` is the number of epochs that an earlier, interrupted call had done; ``bf16`` whether
    passes ran in bfloat16.
    """

    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    stopped_early: bool = False
    holdout_size: int = 0
    resumed_after: int = 0
    bf16: bool = False

    @property
    def best(self) -> EpochRecord:
        """The record of the epoch whose weights were kept."""
        return self.epochs[self.best_epoch - 1]

    @property
    def seconds(self) -> float:
        """Time of all epochs, those of an interrupted call included."""
        return sum(epoch.seconds for epoch in self.epochs)
