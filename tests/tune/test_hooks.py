"""Hooks may change the model itself: a removal during training leaves everything else valid."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

from gracile import prune, surgery
from gracile.tune import Ema, Hook, TuneConfig, fit


def _data() -> TensorDataset:
    images = torch.randn(96, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, (images.mean((1, 2, 3)) > 0).long())


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 2),
    )


class Narrow(Hook):
    """Removes half of the channels after an epoch, optimizer and average included."""

    def __init__(self, model: nn.Module, at: int) -> None:
        self.at, self.widths = at, [0]
        self.ema = Ema(model, decay=0.5)

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        self.ema.update(model)
        first = model.get_submodule("0")
        assert isinstance(first, nn.Conv2d)
        self.widths.append(first.out_channels)

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        if epoch == self.at:
            image = (torch.zeros(1, 3, 6, 6),)
            plan = prune.plan(model, image, budget=prune.PerLayer(ratio=0.5), leave=())
            surgery.apply_(model, plan, optimizer, self.ema.averaged)


def test_a_removal_during_training() -> None:
    model = _net()
    hook = Narrow(model, at=2)
    before = next(model.parameters())
    history = fit(model, _data(), TuneConfig(epochs=4, lr=0.05, batch_size=16, bf16=False), hooks=[hook])
    assert hook.widths[-1] == 4
    assert hook.widths[1] == 8
    assert len(history.epochs) == 4
    # Weights of the wide epochs are of another model and cannot be the best ones any more.
    assert history.best_epoch >= 2
    assert next(model.parameters()) is not before
    assert model(torch.zeros(2, 3, 6, 6)).shape == (2, 2)
    assert hook.ema.module(torch.zeros(2, 3, 6, 6)).shape == (2, 2)


def test_hooks_in_a_loop_of_ones_own() -> None:
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    hook, step, (images, labels) = Narrow(model, at=1), 0, _data().tensors
    for epoch in (1, 2):
        for batch, target in zip(images.split(32), labels.split(32), strict=True):
            hook.on_step_begin(model, optimizer, step=step, epoch=epoch)
            nn.functional.cross_entropy(model(batch), target).backward()
            optimizer.step()
            optimizer.zero_grad()
            hook.on_step_end(model, optimizer, step=step, epoch=epoch)
            step += 1
        hook.on_epoch_end(model, optimizer, step=step, epoch=epoch)
    assert hook.widths[1:] == [8, 8, 8, 4, 4, 4]
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert owned == {id(parameter) for parameter in model.parameters()}
