"""What a fine-tuning run is: every choice that changes its result."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gracile.errors import BadArgument

from .compiled import BACKENDS
from .optimizer import OPTIMIZERS
from .schedule import SCHEDULES


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Choices of a fine-tuning run; two runs with the same configuration and data give the same weights.

    Args:
        epochs: Times through the training data, at least 1.
        lr: Highest learning rate, reached after the warm-up. 0.01 is a tenth of what such networks are
            usually trained with from scratch, as is customary after pruning.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        momentum: Momentum of ``sgd``, from 0 up to but without 1.
        nesterov: Nesterov's momentum, for ``sgd``.
        weight_decay: L2 penalty (``sgd``, ``adam``) or decoupled decay (``adamw``).
        decay_norms: Decay biases and normalisation weights (axes below 2) too.
        schedule: ``cosine`` to zero, ``step`` (times ``gamma`` at each milestone) or ``constant``.
        milestones: For ``step``: shares of the run, each between 0 and 1.
        gamma: For ``step``: factor at each milestone.
        rewound: Share of the schedule that lies behind when the run begins, from 0 up to but without 1:
            learning-rate rewinding goes through the end of the original's schedule again, ``lr`` being the
            original's highest rate.
        warmup_epochs: Linear rise of the learning rate from zero; a part of an epoch is allowed.
        batch_size: Examples in a step, when the data are examples; ready batches keep their size.
        label_smoothing: Share of the target spread over all classes, from 0 up to but without 1.
        clip_norm: Largest norm of the gradient; None leaves it as it is.
        ema_decay: Keep an exponential moving average of the weights, which is what gets judged and returned;
            None for none. 0.999 averages over about a thousand steps.
        holdout: Share of the training examples held out to choose the epoch, from 0 up to but without 1. The
            test data are never used for that.
        patience: Stop after this many epochs without a better held-out accuracy; None never stops early.
        bf16: Run forward and backward passes in bfloat16 where autocast finds it safe; None: where the
            device has instructions for it (:func:`gracile.observe.fast_bfloat16`). On a processor with
            AVX-512 BF16 this took half the time of float32 on ResNet-56; on one without it, ten times
            as long and more.
        compile: Backend of ``torch.compile`` that runs the training steps: ``inductor`` writes code of its
            own (on a CPU with a C++ compiler) and takes a minute or so before the first step; it pays for
            networks of many small operations, as quantization-aware training has. ``aot_eager`` compiles
            nothing and is for tests. None runs the model as it is.
        augment: Apply the data's own random augmentation to training batches.
        seed: Order, augmentation, held-out part and dropout.

    Raises:
        BadArgument: A field lies outside its range.

    Example:
        >>> TuneConfig(epochs=3, lr=0.02).schedule
        'cosine'
    """

    epochs: int = 3
    lr: float = 0.01
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norms: bool = True
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    rewound: float = 0.0
    warmup_epochs: float = 0.0
    batch_size: int = 128
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    holdout: float = 0.05
    patience: int | None = None
    bf16: bool | None = None
    compile: str | None = None
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _among("optimizer", self.optimizer, OPTIMIZERS)
        _among("schedule", self.schedule, SCHEDULES)
        if self.compile is not None:
            _among("compile", self.compile, BACKENDS)
        whole = (("epochs", self.epochs), ("batch_size", self.batch_size), ("patience", self.patience))
        for name, count in whole:
            _need(count is None or count >= 1, name, "at least 1", count)
        _need(self.lr > 0, "lr", "above 0", self.lr)
        _need(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _need(0 < self.gamma <= 1, "gamma", "above 0, at most 1", self.gamma)
        _need(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", "0 up to epochs", self.warmup_epochs)
        _need(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)
        _need(all(0 < share < 1 for share in self.milestones), "milestones", "in (0, 1)", self.milestones)
        shares = ("momentum", "label_smoothing", "holdout", "ema_decay", "rewound")
        for name in shares:
            share = getattr(self, name)
            _need(share is None or 0 <= share < 1, name, "at least 0, below 1", share)
        _need(
            not (self.nesterov and self.optimizer == "sgd" and self.momentum == 0),
            "nesterov",
            "momentum above 0, or nesterov=False",
            self.momentum,
        )


def _need(holds: bool, name: str, wanted: str, found: object) -> None:
    if not holds:
        raise BadArgument(name, wanted=wanted, found=f"{name}={found!r}")


def _among(name: str, found: str, known: Collection[str]) -> None:
    if found not in known:
        raise BadArgument(name, wanted=f"one of {', '.join(sorted(known))}", found=f"{name}={found!r}")
