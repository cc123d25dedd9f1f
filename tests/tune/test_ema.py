"""The average against its formula, also as a hook in a loop of one's own."""

from __future__ import annotations

import torch
from torch import nn

from gracile.tune import Ema


def test_it_is_the_formula_buffers_included() -> None:
    model = nn.BatchNorm1d(3)
    ema = Ema(model, decay=0.8)
    weight, mean = model.weight.detach().clone(), model.running_mean.clone()
    for _ in range(4):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3))
            model.running_mean.copy_(torch.randn(3))
        ema.update(model)
        weight = 0.8 * weight + 0.2 * model.weight.detach()
        mean = 0.8 * mean + 0.2 * model.running_mean
    torch.testing.assert_close(ema.module.weight.detach(), weight)
    torch.testing.assert_close(ema.module.running_mean, mean)


def test_integers_are_taken_as_they_are() -> None:
    """Indices, such as of channels or positions, have no mean; 0.9 * 7 + 0.1 * 7 is just below 7."""
    model = nn.BatchNorm1d(3)
    model.register_buffer("index", torch.arange(4096))
    ema = Ema(model, decay=0.9)
    for _ in range(3):
        model(torch.randn(4, 3))
        ema.update(model)
    assert torch.equal(ema.module.index, torch.arange(4096))
    assert ema.module.num_batches_tracked == 3


def test_the_model_is_copied() -> None:
    model = nn.Linear(2, 2)
    ema = Ema(model, decay=0.5)
    before = model.weight.detach().clone()
    ema.module.weight.data.zero_()
    assert torch.equal(model.weight, before)


def test_as_a_hook_in_a_loop_of_ones_own() -> None:
    model = nn.Linear(2, 1)
    ema, optimizer = Ema(model, decay=0.0), torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        ema.on_step_begin(model, optimizer, step=step, epoch=1)
        model(torch.ones(4, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.on_step_end(model, optimizer, step=step, epoch=1)
    ema.on_epoch_end(model, optimizer, step=3, epoch=1)
    assert torch.equal(ema.module.weight, model.weight)  # decay 0: the average is the last value
