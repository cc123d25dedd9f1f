"""Training: against a loop written by hand, resumed, interrupted, and with bad input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gracile.errors import BadArgument, NonFiniteError, StorageError
from gracile.observe import DatasetBatches, devices
from gracile.tune import EpochRecord, Hook, TuneConfig, fit, learning_rate, session

CONFIG = TuneConfig(epochs=4, lr=0.05, batch_size=16, bf16=False, holdout=0.25)


def _examples(count: int = 96) -> TensorDataset:
    images = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    labels = (images.mean((1, 2, 3)) > 0).long() + (images[:, 0, 0, 0] > 0.5).long()
    return TensorDataset(images, labels)


def _net(seed: int = 0, *, dropout: float = 0.3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(24, 3)
    )


def _same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def _timeless(epochs: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [replace(epoch, seconds=0.0) for epoch in epochs]


class _Interrupt(Hook):
    """Stops the run as Ctrl-C does, at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        if step == self.at:
            raise KeyboardInterrupt


def test_it_learns_and_leaves_modes_as_they_were() -> None:
    net = _net(dropout=0.0).eval()
    net[2].train()
    history = fit(net, _examples(256), replace(CONFIG, epochs=12, lr=0.1))
    assert history.best.holdout_accuracy is not None
    assert history.best.holdout_accuracy > 60
    assert history.epochs[-1].train_loss < 0.75 * history.epochs[0].train_loss
    assert [module.training for module in net] == [False, False, True, False, False, False]
    assert not hasattr(net, "_is_accelerate_prepared")
    assert "forward" not in vars(net)


def test_bfloat16_learns_too() -> None:
    history = fit(_net(dropout=0.0), _examples(256), replace(CONFIG, epochs=12, lr=0.1, bf16=True))
    assert history.best.train_accuracy > 75
    assert history.bf16


@pytest.mark.parametrize("fast", [False, True])
def test_without_a_word_it_trains_in_bfloat16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    for module in (devices, session):
        monkeypatch.setattr(module, "fast_bfloat16", lambda device: fast)
    seen: set[torch.dtype] = set()
    net = _net(dropout=0.0)
    net.register_forward_hook(lambda module, given, found: seen.add(found.dtype))
    history = fit(net, _examples(64), replace(CONFIG, epochs=1, bf16=None))
    assert history.bf16 == fast
    assert seen == {torch.bfloat16 if fast else torch.float32}


def test_it_is_the_loop_one_would_write() -> None:
    batches = [(torch.randn(8, 1, 4, 4), torch.randint(0, 3, (8,))) for _ in range(5)]
    ours, theirs = _net(dropout=0.0), _net(dropout=0.0)
    config = TuneConfig(
        epochs=2, lr=0.1, weight_decay=0.01, warmup_epochs=0.4, clip_norm=0.5, label_smoothing=0.1, bf16=False
    )
    history = fit(ours, batches, config)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for step in range(10):
        images, labels = batches[step % 5]
        optimizer.param_groups[0]["lr"] = rate = learning_rate(step, 10, lr=0.1, warmup=2)
        F.cross_entropy(theirs(images), labels, label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    assert history.epochs[-1].lr == rate
    assert (history.best_epoch, history.holdout_size) == (2, 0)


def test_the_same_call_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    first, second, other = _net(), _net(), _net()
    state = torch.get_rng_state()
    a, b = fit(first, _examples(), CONFIG), fit(second, _examples(), CONFIG)
    assert torch.equal(torch.get_rng_state(), state)
    fit(other, _examples(), replace(CONFIG, seed=1))
    assert _same(first, second)
    assert _timeless(a.epochs) == _timeless(b.epochs)
    assert not _same(first, other)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "adamw", "decay_norms": False, "ema_decay": 0.9},
        {"ema_decay": 0.8, "holdout": 0.0, "schedule": "step"},
    ],
    ids=["sgd", "adam", "adamw-ema", "ema-no-holdout"],
)
@pytest.mark.parametrize("stopped_at", [6, 8], ids=["mid-epoch", "epoch-start"])
def test_going_on_from_a_checkpoint_is_like_never_having_stopped(
    tmp_path: Path, change: dict[str, Any], stopped_at: int
) -> None:
    config = replace(CONFIG, **change)
    whole, halted = _net(), _net()
    wanted = fit(whole, _examples(), config)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(halted, _examples(), config, checkpoint=path, hooks=[_Interrupt(stopped_at)])
    resumed = _net()
    found = fit(resumed, _examples(), config, checkpoint=path)
    assert found.resumed_after >= 1
    assert _timeless(found.epochs) == _timeless(wanted.epochs)
    assert found.best_epoch == wanted.best_epoch
    assert _same(resumed, whole)


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    path, first, again = tmp_path / "run.safetensors", _net(), _net()
    wanted = fit(first, _examples(), CONFIG, checkpoint=path)
    found = fit(again, _examples(), CONFIG, checkpoint=path, hooks=[_Interrupt(0)])
    assert found == replace(wanted, resumed_after=4)
    assert _same(first, again)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit(_net(), _examples(), CONFIG, checkpoint=path)
    with pytest.raises(StorageError, match=r"differs in lr \(0\.05\)"):
        fit(_net(), _examples(), replace(CONFIG, lr=0.5), checkpoint=path)
    with pytest.raises(StorageError, match="starting weights"):
        fit(_net(seed=1), _examples(), CONFIG, checkpoint=path)
    with pytest.raises(StorageError, match="steps an epoch"):
        fit(_net(), _examples(200), CONFIG, checkpoint=path)


def test_the_best_epochs_weights_are_kept_and_patience_stops() -> None:
    config = replace(CONFIG, epochs=9, lr=0.1, patience=2)
    states: list[dict[str, Tensor]] = []
    net = _net(dropout=0.0)

    class Spoil(Hook):
        """Makes every epoch after the second useless, by predicting what no label is."""

        def on_epoch_end(
            self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
        ) -> None:
            if epoch > 2:
                model[5].bias.data[:] = torch.tensor([-1e3, -1e3, 1e3])
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    history = fit(net, _examples(256), config, hooks=[Spoil()])
    assert history.best_epoch in (1, 2)
    assert history.stopped_early
    assert len(history.epochs) == history.best_epoch + 2
    best = states[history.best_epoch - 1]
    assert all(torch.equal(best[name], tensor) for name, tensor in net.state_dict().items())


def test_held_out_examples_are_never_trained_on() -> None:
    data = _examples(64)
    seen: list[Tensor] = []

    def loss(outputs: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        seen.append(images)
        return F.cross_entropy(outputs, labels)

    history = fit(_net(), data, replace(CONFIG, epochs=2), loss=loss)
    trained = {tuple(image.flatten().tolist()) for image in torch.cat(seen)}
    assert (len(trained), history.holdout_size) == (48, 16)


def test_given_holdout_is_used_whole() -> None:
    history = fit(_net(), _examples(64), CONFIG, holdout=_examples(40))
    assert history.holdout_size == 40
    assert history.epochs[0].steps == 4


def test_a_loss_of_ones_own_decides() -> None:
    net = _net(dropout=0.0)
    history = fit(
        net, _examples(), replace(CONFIG, holdout=0.0), loss=lambda outputs, labels, images: outputs.sum() * 0
    )
    assert history.epochs[-1].train_loss == 0.0


def test_hooks_are_called_in_order() -> None:
    calls: list[tuple[str, int, int]] = []

    class Record(Hook):
        def on_step_begin(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None:
            calls.append(("begin", step, epoch))

        def on_step_end(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None:
            calls.append(("end", step, epoch))

        def on_epoch_end(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None:
            calls.append(("epoch", step, epoch))

    fit(_net(), _examples(32), replace(CONFIG, epochs=2, holdout=0.0), hooks=[Record()])
    one = [("begin", 0, 1), ("end", 0, 1), ("begin", 1, 1), ("end", 1, 1), ("epoch", 2, 1)]
    assert calls == one + [(name, step + 2, 2) for name, step, _ in one]


def test_on_epoch_sees_each_record_once(tmp_path: Path) -> None:
    seen: list[EpochRecord] = []
    history = fit(_net(), _examples(), CONFIG, on_epoch=seen.append)
    assert tuple(seen) == history.epochs


def test_augmentation_is_the_datas_own() -> None:
    def darken(images: Tensor, generator: torch.Generator | None) -> Tensor:
        return images * 0

    seen: list[float] = []

    def loss(outputs: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        seen.append(images.abs().max().item())
        return F.cross_entropy(outputs, labels)

    data = DatasetBatches(_examples(32), darken)
    fit(_net(), data, replace(CONFIG, epochs=1, augment=True, holdout=0.0), loss=loss)
    assert seen == [0.0, 0.0]


def test_a_dataloader_and_its_shuffling_repeat() -> None:
    first, second = _net(), _net()
    for net in (first, second):
        loader = DataLoader(_examples(), batch_size=16, shuffle=True)
        fit(net, loader, replace(CONFIG, epochs=2), holdout=DataLoader(_examples(20), batch_size=8))
    assert _same(first, second)


@pytest.mark.parametrize("where", ["images", "weights"])
def test_nan_is_an_error_that_says_when(where: str) -> None:
    net, data = _net(), _examples()
    if where == "images":
        data.tensors[0][:] = float("nan")
    else:
        net[5].weight.data[0, 0] = float("inf")
        data.tensors[0][:] = 0.0
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 0.*nan at learning rate 0\.05") as caught:
        fit(net, data, CONFIG)
    assert "clip_norm" in caught.value.do


def test_divergence_names_the_step() -> None:
    with pytest.raises(NonFiniteError, match=r"epoch [1-4], (step [1-9]|held-out part)"):
        fit(_net(), _examples(), replace(CONFIG, lr=1e30))


def _endless() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize(
    ("data", "config", "said"),
    [
        ([], CONFIG, "at least one batch"),
        (_endless(), CONFIG, "with a length"),
        (DatasetBatches([]), replace(CONFIG, holdout=0.0), "at least one batch"),
        (_examples(), replace(CONFIG, holdout=0.0, patience=1), "a held-out part to judge by"),
        (_examples(), replace(CONFIG, augment=True), "augmentation"),
    ],
)
def test_data_that_cannot_be_used_are_refused(data: Any, config: TuneConfig, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        fit(_net(), data, config)


def test_fewer_examples_than_a_batch_make_one_step() -> None:
    history = fit(_net(), _examples(10), replace(CONFIG, holdout=0.0, batch_size=64))
    assert [epoch.steps for epoch in history.epochs] == [1, 1, 1, 1]


def test_progress_moves_to_the_end() -> None:
    bars = Progress(disable=True)
    fit(_net(), _examples(), replace(CONFIG, epochs=2), progress=bars)
    (task,) = bars.tasks
    assert (task.completed, task.total) == (8, 8)
    assert "epoch 2/2, loss" in task.description


def test_a_bar_of_its_own_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    fit(_net(), _examples(), replace(CONFIG, epochs=1), progress=True)
    assert "epoch 1/1, loss" in capsys.readouterr().out
