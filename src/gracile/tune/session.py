"""The state of a training run between steps and epochs: what a checkpoint holds and brings back."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from gracile.errors import NonFiniteError, StorageError
from gracile.observe import bfloat16_autocast, fast_bfloat16

from .checkpoint import Checkpoint, State, copy_state, load_checkpoint, save_checkpoint
from .compiled import compiled
from .config import TuneConfig
from .ema import Ema
from .evaluate import evaluate
from .hooks import Hook, StatefulHook
from .identity import Identity, difference, identity_of
from .loss import Loss
from .optimizer import make_optimizer
from .progress import Advance
from .records import EpochRecord, History
from .schedule import learning_rate
from .source import Source


class Session:
    """The changing state of one call of :func:`fit`."""

    def __init__(
        self, model: nn.Module, source: Source, config: TuneConfig, loss: Loss, hooks: tuple[Hook, ...]
    ) -> None:
        self.model, self.source, self.config, self.loss = model, source, config, loss
        self.hooks = hooks
        self.lasting = [hook for hook in hooks if isinstance(hook, StatefulHook)]
        self.best_settled = True
        self.records: list[EpochRecord] = []
        self.best: State = {}
        self.best_epoch = 0
        self.step = 0
        self.resumed_after = 0
        self.identity: Identity = {}

    def begin(self, accelerator: Accelerator, checkpoint: Path | None) -> None:
        """Move to the device, build optimizer and average, and take over a checkpoint's state."""
        self.accelerator = accelerator
        if checkpoint is not None:  # hooks change weights when they begin
            self.identity = identity_of(self.model, self.config, self.source, self.loss, self.lasting)
        self.model.to(accelerator.device)
        self.optimizer = make_optimizer(self.model, self.config)
        self.ema = Ema(self.model, self.config.ema_decay) if self.config.ema_decay is not None else None
        for hook in self.lasting:
            hook.on_begin(self.model, self.optimizer, average=self.ema.averaged if self.ema else None)
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)
        self.wrapped = accelerator.prepare_model(self.model)
        self.prepared = accelerator.prepare_optimizer(self.optimizer)
        backend = self.config.compile
        self.forward = self.wrapped if backend is None else compiled(self.wrapped, backend)

    def end(self) -> None:
        """Take off what Accelerate put on the user's model."""
        if hasattr(self, "wrapped"):
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
            self.model.__dict__.pop("_is_accelerate_prepared", None)
            self.accelerator.free_memory()

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and returned: the averaged model where there is one."""
        return self.ema.module if self.ema else self.model

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out before the last epoch."""
        waited = len(self.records) - self.best_epoch
        patience = self.config.patience
        return patience is not None and waited >= patience and len(self.records) < self.config.epochs

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to do."""
        return len(self.records) >= self.config.epochs or self.stopped_early

    @property
    def history(self) -> History:
        """What happened so far."""
        return History(
            epochs=tuple(self.records),
            best_epoch=self.best_epoch,
            stopped_early=self.stopped_early,
            holdout_size=self.source.held_size,
            resumed_after=self.resumed_after,
            bf16=fast_bfloat16(self._where) if self.config.bf16 is None else self.config.bf16,
        )

    def run_epoch(self, advance: Advance) -> EpochRecord:
        """Train for one epoch, judge it, and remember it when it is the best."""
        began, epoch = time.perf_counter(), len(self.records) + 1
        generator = torch.Generator().manual_seed(_epoch_seed(self.config.seed, epoch))
        torch.manual_seed(_epoch_seed(self.config.seed, epoch) + self.accelerator.process_index)
        self.model.train()
        total, right, count, rate = 0.0, 0, 0, 0.0
        for images, labels in self.source.epoch(generator):
            rate = self._set_rate()
            value, hits = self._train_step(images, labels, epoch, rate)
            total, right, count = total + value * len(labels), right + hits, count + len(labels)
            advance(f"epoch {epoch}/{self.config.epochs}, loss {total / count:.3f}")
        for hook in self.hooks:
            hook.on_epoch_end(self.model, self.optimizer, step=self.step, epoch=epoch)
        loss, accuracy = self._judge(epoch)
        sums = self.accelerator.reduce(
            torch.tensor([total, right, count], dtype=torch.float64).to(self._where)
        )
        record = EpochRecord(
            epoch=epoch,
            steps=self.source.steps,
            lr=rate,
            train_loss=(sums[0] / sums[2]).item(),
            train_accuracy=(100 * sums[1] / sums[2]).item(),
            holdout_loss=loss,
            holdout_accuracy=accuracy,
            seconds=time.perf_counter() - began,
        )
        self.records.append(record)
        self._remember(record)
        return record

    def save(self, path: Path | None) -> None:
        """Write the state after an epoch; only the main process writes."""
        if path is not None and self.accelerator.is_main_process:
            facts = {
                "identity": self.identity,
                "records": [asdict(record) for record in self.records],
                "best_epoch": self.best_epoch,
                "best_settled": self.best_settled,
                "step": self.step,
                "hooks": [hook.memory() for hook in self.lasting],
            }
            average = copy_state(self.ema.averaged) if self.ema else {}
            state = Checkpoint(
                model=copy_state(self.model),
                optimizer=self.optimizer.state_dict(),
                best=self.best,
                ema=average,
                facts=facts,
            )
            save_checkpoint(path, state)
        self.accelerator.wait_for_everyone()

    def keep_best(self) -> None:
        """Leave the model with the weights of its best epoch."""
        self.model.load_state_dict(self.best or copy_state(self.judged))

    @property
    def _where(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def _set_rate(self) -> float:
        config, steps = self.config, self.source.steps
        rate = learning_rate(
            self.step,
            config.epochs * steps,
            lr=config.lr,
            schedule=config.schedule,
            warmup=round(config.warmup_epochs * steps),
            milestones=config.milestones,
            gamma=config.gamma,
            rewound=config.rewound,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _train_step(self, images: Tensor, labels: Tensor, epoch: int, rate: float) -> tuple[float, int]:
        images, labels = images.to(self._where), labels.to(self._where)
        for hook in self.hooks:
            hook.on_step_begin(self.model, self.optimizer, step=self.step, epoch=epoch)
        with bfloat16_autocast(self._where, self.config.bf16):
            outputs = self.forward(images)
        loss = self.loss(outputs, labels, images)
        value = loss.item()
        if not math.isfinite(value):
            raise _not_finite(f"step {self.step}", epoch, value, rate)
        self.accelerator.backward(loss)
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.prepared.step()
        self.prepared.zero_grad()
        if self.ema:
            self.ema.update(self.model)
        for hook in self.hooks:
            hook.on_step_end(self.model, self.optimizer, step=self.step, epoch=epoch)
        self.step += 1
        return value, int((outputs.argmax(1) == labels).sum())

    def _judge(self, epoch: int) -> tuple[float | None, float | None]:
        if self.accelerator.num_processes > 1:  # each process has its own running statistics
            for buffer in self.judged.buffers():
                buffer.copy_(broadcast(buffer.clone()))
        if not self.source.held_size:
            return None, None
        score = evaluate(self.judged, self.source.held(), bf16=self.config.bf16)
        if not math.isfinite(score.loss):
            raise _not_finite("held-out part", epoch, score.loss, self.config.lr)
        both = broadcast(torch.tensor([score.loss, score.accuracy], dtype=torch.float64).to(self._where))
        return both[0].item(), both[1].item()

    @property
    def settled(self) -> bool:
        """Whether the model has the form that the hooks work towards."""
        return all(hook.settled for hook in self.lasting)

    def _remember(self, record: EpochRecord) -> None:
        comparable, self.best_settled = self.best_settled and self.settled, self.settled
        if record.holdout_loss is None or record.holdout_accuracy is None:
            self.best_epoch = record.epoch
            return
        same_shapes = _shapes(self.best) == _shapes(self.judged.state_dict())
        if (
            self.best_epoch
            and comparable
            and same_shapes
            and _merit(record) <= _merit(self.records[self.best_epoch - 1])
        ):
            return
        self.best_epoch, self.best = record.epoch, copy_state(self.judged)

    def _restore(self, path: Path) -> None:
        state = load_checkpoint(path)
        if state.facts.get("identity") != self.identity:
            raise StorageError(
                str(path),
                wanted="a checkpoint of this very run",
                found=difference(state.facts.get("identity") or {}, self.identity),
                do="Delete it to start anew, or go back to the run it belongs to.",
            )
        for hook, memory in zip(self.lasting, state.facts["hooks"], strict=True):
            hook.resume(memory)
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        if self.ema:
            self.ema.averaged.load_state_dict(state.ema)
        self.best, self.best_epoch = state.best, state.facts["best_epoch"]
        self.best_settled = state.facts["best_settled"]
        self.records = [EpochRecord(**record) for record in state.facts["records"]]
        self.step, self.resumed_after = state.facts["step"], len(self.records)


def _merit(record: EpochRecord) -> tuple[float, float]:
    assert record.holdout_accuracy is not None
    assert record.holdout_loss is not None
    return record.holdout_accuracy, -record.holdout_loss


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch * 1009


def _not_finite(place: str, epoch: int, value: float, rate: float) -> NonFiniteError:
    return NonFiniteError(
        f"epoch {epoch}, {place}",
        wanted="a finite loss",
        found=f"{value} at learning rate {rate:g}",
        do="Lower lr, add warmup_epochs or clip_norm, and look for NaN in the data and the weights.",
    )
