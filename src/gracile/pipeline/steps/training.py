"""What ``train`` and ``tune`` have in common: the fields of a training and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gracile.errors import BadArgument
from gracile.records import PrunePlan, SparsityPoint, count_text, from_plain, to_plain

from ..schema import Step
from .gradual import GradualPart
from .less_is_more import LessIsMorePart

if TYPE_CHECKING:
    from torch import nn

    from gracile.observe import Batches
    from gracile.prune import GradualChannels, GradualMasks, LessIsMore
    from gracile.tune import History, Hook, Loss, TuneConfig

    from ..state import Bench, Outcome, State


class TrainingStep(Step):
    """Fields of a training."""

    epochs: int = Field(default=3, ge=1)
    """Times through the training images."""
    lr: float = Field(default=0.01, gt=0)
    """Highest learning rate."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_norms: bool = True
    """Decay biases and normalisation weights too."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    """For ``step``: shares of the run."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """For ``step``: factor at each milestone."""
    rewound: float = Field(default=0.0, ge=0, lt=1)
    """Share of the learning-rate schedule that lies behind when training begins."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=128, ge=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    """Keep a moving average of the weights and return that."""
    holdout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the training images held out to choose the best epoch; test images are never used for that."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without progress on the held-out images."""
    bf16: bool | None = None
    """bfloat16 autocast: twice as fast on processors that have it, many times slower on others; when empty,
    on where it is fast."""
    compile: Literal["inductor", "aot_eager"] | None = None
    """Run training steps through ``torch.compile`` (on a CPU it needs a C++ compiler)."""
    augment: bool = False
    """The data set's own augmentation (crops, flips)."""
    train_images: int | None = Field(default=None, ge=1)
    """Use only so many training images, drawn by the seed; all when empty."""
    gradual: GradualPart | None = None
    """Prune during the training."""
    less_is_more: LessIsMorePart | None = None
    """Remove channels while training."""

    @property
    def makes_masks(self) -> bool:
        """Gradual pruning masks weights, unless it removes channels."""
        return self.gradual is not None and self.gradual.budget is None

    def check(self) -> None:
        """Refuse what the training's configuration refuses."""
        self.config(seed=0)
        if self.gradual is not None:
            self.gradual.check_gradual(self.epochs)
        if self.less_is_more is not None:
            self._check_less_is_more()

    def config(self, seed: int) -> TuneConfig:
        """The fields as the library's own configuration."""
        from gracile import tune

        known = {choice.name for choice in fields(tune.TuneConfig)}
        return tune.TuneConfig(seed=seed, **self.model_dump(include=known))

    def loss(self, bench: Bench) -> Loss | None:
        """What training makes small; ``None`` for cross entropy."""
        return None

    def run(self, state: State, bench: Bench) -> Outcome:
        """Train ``state.model`` in place; goes on from ``bench.partial`` after an interruption."""
        from gracile import prune

        from ..state import Outcome

        examples, steps = self.examples(bench)
        gradual = None if self.gradual is None else self.gradual.hook(state, bench, self.epochs, steps)
        reducer = None if self.less_is_more is None else self._reducer(state, bench, steps)
        keeping = [hook for hook in (state.masks and prune.Masks(state.masks), gradual, reducer) if hook]
        history = self.fit(state.model, bench, keeping)
        pruned = "" if gradual is None else f", {100 * gradual.points[-1].sparsity:.1f} % of the weights gone"
        curve = {} if gradual is None else {"sparsity": sparsity_curve(gradual.points, history.best.steps)}
        outcome = Outcome(
            state=state if gradual is None else with_pruning(state, gradual),
            summary=told(history) + pruned,
            detail=facts(history, len(examples)) | curve,
        )
        return outcome if reducer is None else self._reduced(outcome, reducer, history)

    def examples(self, bench: Bench) -> tuple[Batches, int]:
        """The training images of this step, and its steps an epoch."""
        examples = bench.bundle.train
        if self.train_images is not None and self.train_images < len(examples):
            examples = examples.subset(torch_order(len(examples), bench.seed)[: self.train_images])
        return examples, max(int(len(examples) * (1 - self.holdout)) // self.batch_size, 1)

    def fit(self, model: nn.Module, bench: Bench, hooks: Sequence[Hook]) -> History:
        """Train ``model`` in place as the fields say and leave it in evaluation mode."""
        from gracile import tune

        examples, steps = self.examples(bench)
        history = tune.fit(
            model,
            examples,
            self.config(bench.seed),
            loss=self.loss(bench),
            hooks=(*hooks, Ticker(bench.tick, steps * self.epochs, self.epochs)),
            checkpoint=bench.partial,
        )
        model.eval()
        return history

    def _check_less_is_more(self) -> None:
        if self.ema_decay is not None:
            raise BadArgument(
                "less_is_more",
                wanted="ema_decay to be empty",
                found=f"{self.ema_decay}",
                do="An average over networks of several widths means nothing; leave one out.",
            )
        if self.gradual is not None:
            raise BadArgument(
                "less_is_more", wanted="`gradual` to be empty", found="both",
                do="Both remove weights while training; leave one out.",
            )  # fmt: skip

    def _reducer(self, state: State, bench: Bench, steps: int) -> LessIsMore:
        assert self.less_is_more is not None
        if state.masks:
            raise BadArgument(
                "less_is_more", wanted="a model without masks", found="masks of an earlier step",
                do="Put `sparsify` behind the step that removes channels.",
            )  # fmt: skip
        return self.less_is_more.hook(
            state.model, bench.inputs, epochs=self.epochs, steps=steps, seed=bench.seed
        )

    def _reduced(self, outcome: Outcome, reducer: LessIsMore, history: History) -> Outcome:
        """The outcome of a training that removed channels, with the share left after each epoch."""
        from ..state import Change

        plan, per_epoch = reducer.plan, history.epochs[0].steps if reducer.by_step else 1
        ends = [reducer.params, *(reducer.params_after(e.epoch * per_epoch) for e in history.epochs)]
        left = [100 * count / ends[0] for count in ends[1:]]
        epochs = [old | {"params_left": n} for old, n in zip(outcome.detail["epochs"], left, strict=True)]
        state = outcome.state
        if plan.slices:
            state = state.changed(state.model, Change(kind=self.step, plan=to_plain(plan)))
        return replace(
            outcome,
            state=state,
            summary=f"{outcome.summary}, parameters {count_text(ends[0])} -> {count_text(ends[-1])}",
            detail=outcome.detail | {"epochs": epochs, "reductions": [to_plain(r) for r in reducer.history]},
            skips=plan.skipped,
        )

    @classmethod
    def restore(cls, model: nn.Module, plan: dict[str, Any]) -> nn.Module:
        """Give ``model`` the widths that a reduction during training left."""
        from gracile import surgery

        return surgery.apply_(model, from_plain(PrunePlan, plan))


def told(history: History) -> str:
    """A training in a sentence."""
    best = history.best
    shown = best.train_accuracy if best.holdout_accuracy is None else best.holdout_accuracy
    which = "training" if best.holdout_accuracy is None else "held-out"
    return f"{len(history.epochs)} epochs, {shown:.1f} % on {which} images in epoch {best.epoch}"


def facts(history: History, images: int) -> dict[str, Any]:
    """A training in numbers, for the report."""
    return {
        "epochs": [asdict(epoch) for epoch in history.epochs],
        "best_epoch": history.best_epoch,
        "stopped_early": history.stopped_early,
        "holdout_size": history.holdout_size,
        "train_images": images,
        "resumed_after": history.resumed_after,
        "bf16": history.bf16,
    }


def with_pruning(state: State, hook: GradualMasks | GradualChannels) -> State:
    """The state after a training that masked weights or removed channels."""
    from dataclasses import replace

    from gracile import prune

    from ..state import Change

    if isinstance(hook, prune.GradualMasks):
        return state if hook.plan is None else replace(state, masks=prune.join_masks(state.masks, hook.plan))
    for plan in hook.plans:
        state = state.changed(state.model, Change(kind="prune", plan=to_plain(plan)))
    return state


def sparsity_curve(points: Sequence[SparsityPoint], steps: int) -> list[dict[str, Any]]:
    """Points for the report, ``steps`` training steps being an epoch."""
    return [to_plain(point) | {"epoch": point.step / steps} for point in points]


def torch_order(count: int, seed: int) -> list[int]:
    """A random order of ``count`` examples, the same for the same seed."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


class Ticker:
    """A training hook that tells how far it is."""

    def __init__(self, tick: Callable[[str, float, float], None], steps: int, epochs: int) -> None:
        self.tick, self.steps, self.epochs = tick, steps, epochs

    def on_step_begin(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None:
        """Nothing."""

    def on_step_end(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None:
        """Move the bar."""
        self.tick(f"epoch {epoch} of {self.epochs}", step + 1, self.steps)

    def on_epoch_end(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None:
        """Nothing."""
