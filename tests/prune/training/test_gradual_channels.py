"""Channels that go during training: budgets that move, optimizer and average that follow, resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from gracile import graph, prune, tune
from gracile.errors import BadArgument, BudgetError
from gracile.prune.training.gradual_channels import budget_at
from gracile.records import LatencyTable
from gracile.tune import TuneConfig, fit

INPUTS = (torch.zeros(1, 3, 6, 6),)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 10, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(40, 2),
    )  # fmt: skip


def examples() -> TensorDataset:
    images = torch.randn(96, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, (images.mean((1, 2, 3)) > 0).long())


def hook(**fields: Any) -> prune.GradualChannels:
    pace = prune.Pace(begin=0, end=8, every=2)
    given: dict[str, Any] = {"pace": pace, "leave": (), "schedule": prune.Linear()}
    return prune.GradualChannels(INPUTS, **(given | fields))


def train(model: nn.Module, *hooks: tune.Hook, **fields: Any) -> tune.History:
    config = TuneConfig(epochs=3, lr=0.05, batch_size=16, bf16=False, holdout=0.2, **fields)
    return fit(model, examples(), config, hooks=hooks)


@pytest.mark.parametrize(
    "budget",
    [
        prune.PerLayer(ratio=0.5),
        prune.Global(ratio=0.5),
        prune.Macs(fraction_kept=0.4),
        prune.Params(fraction_kept=0.4),
        prune.Widths(units={"0": 5, "3": 4}),
    ],
    ids=lambda budget: type(budget).__name__,
)
@pytest.mark.parametrize("ema_decay", [None, 0.7])
def test_the_budget_is_reached_step_by_step(budget: prune.Budget, ema_decay: float | None) -> None:
    model, whole = make(), graph.cost(make(), INPUTS)
    shrink = hook(budget=budget)
    history = train(model, shrink, ema_decay=ema_decay)
    after = graph.cost(model, INPUTS)
    first, second = model[0].out_channels, model[3].out_channels
    assert [p.step for p in shrink.points] == [0, 2, 4, 6, 8]
    assert [p.sparsity for p in shrink.points] == sorted(p.sparsity for p in shrink.points)
    assert shrink.points[-1].sparsity == pytest.approx(1 - after.params / whole.params)
    if isinstance(budget, prune.PerLayer):
        assert (first, second) == (8, 5)
    elif isinstance(budget, prune.Global):
        assert first + second == 13
    elif isinstance(budget, prune.Widths):
        assert (first, second) == (5, 4)
    elif isinstance(budget, prune.Macs):
        assert 0.3 <= after.macs / whole.macs <= 0.4
    else:
        assert 0.3 <= after.params / whole.params <= 0.4
    assert history.best_epoch >= 2
    assert model(torch.zeros(2, 3, 6, 6)).shape == (2, 2)


def test_shares_of_the_whole_network_not_of_what_is_left() -> None:
    shrink = hook(budget=prune.PerLayer(ratio=0.5))
    train(make(), shrink)
    widths = [tuple(len(g.keep) for g in plan.groups) for plan in shrink.plans]
    assert widths == [(16, 10), (14, 9), (12, 8), (10, 7), (8, 5)]  # shares 0, 1/8 ... 1/2


def test_momentum_follows_in_a_loop_of_ones_own() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    shrink, (images, labels) = hook(budget=prune.PerLayer(ratio=0.5)), examples().tensors
    for step in range(10):
        shrink.on_step_begin(model, optimizer, step=step, epoch=1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert shrink.settled
    owned = {p for group in optimizer.param_groups for p in group["params"]}
    assert owned == set(model.parameters()) == set(optimizer.state)
    assert all(optimizer.state[p]["momentum_buffer"].shape == p.shape for p in owned)


@pytest.mark.parametrize("ema_decay", [None, 0.7])
def test_it_resumes_as_if_never_stopped(ema_decay: float | None, tmp_path) -> None:
    config = TuneConfig(epochs=3, lr=0.05, batch_size=16, bf16=False, holdout=0.2, ema_decay=ema_decay)
    whole, straight = make(), hook(budget=prune.Macs(fraction_kept=0.5))
    fit(whole, examples(), config, hooks=[straight])

    class Stop(tune.Hook):
        def on_step_begin(self, model, optimizer, *, step, epoch):
            if epoch == 2:
                raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(
            make(),
            examples(),
            config,
            hooks=[hook(budget=prune.Macs(fraction_kept=0.5)), Stop()],
            checkpoint=path,
        )
    again, resumed = make(), hook(budget=prune.Macs(fraction_kept=0.5))
    fit(again, examples(), config, hooks=[resumed], checkpoint=path)
    assert resumed.plans == straight.plans
    assert resumed.points == straight.points
    ours, theirs = again.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_one_shot_removal_is_that_of_the_plan() -> None:
    model = make()
    once = hook(budget=prune.PerLayer(ratio=0.5), schedule=prune.OneShot(), pace=prune.Pace(end=0))
    wanted = prune.plan(model, INPUTS, budget=prune.PerLayer(ratio=0.5), leave=())
    once.on_step_begin(model, torch.optim.SGD(model.parameters(), lr=0.1), step=0, epoch=1)
    assert once.plans == [wanted]


def test_a_hook_that_served_before_begins_anew_with_another_model() -> None:
    once = hook(budget=prune.PerLayer(ratio=0.5), schedule=prune.OneShot(), pace=prune.Pace(end=0))
    for _ in range(2):
        model = make()
        once.on_step_begin(model, torch.optim.SGD(model.parameters(), lr=0.1), step=0, epoch=1)
        assert (model[0].out_channels, len(once.plans), len(once.points)) == (8, 1, 1)


def test_another_optimizer_follows_too() -> None:
    model = make()
    late = hook(budget=prune.PerLayer(ratio=0.5), pace=prune.Pace(begin=1, end=1))
    late.on_step_begin(model, torch.optim.SGD(model.parameters(), lr=0.1), step=0, epoch=1)
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    late.on_step_begin(model, second, step=1, epoch=2)
    assert model[0].out_channels == 8
    assert {p for group in second.param_groups for p in group["params"]} == set(model.parameters())


def test_budgets_at_the_ends() -> None:
    assert budget_at(prune.PerLayer(ratio=0.4), 0.5, []) == prune.PerLayer(ratio=0.2)
    assert budget_at(prune.Global(ratio=0.4), 0.5, []) == prune.Global(ratio=0.2)
    assert budget_at(prune.Widths(units={"a": 3}), 0.5, []) == prune.PerLayer(ratio=0.0)
    assert budget_at(prune.Widths(units={"a": 3}), 1.0, []) == prune.Widths(units={"a": 3})


def test_a_budget_that_cannot_be_met_is_refused_at_the_beginning() -> None:
    model = make()
    shrink = hook(budget=prune.Macs(fraction_kept=0.001))
    with pytest.raises(BudgetError, match="fewest"):
        shrink.on_step_begin(model, torch.optim.SGD(model.parameters(), lr=0.1), step=0, epoch=1)
    assert repr(model) == repr(make())


def test_a_budget_in_milliseconds_is_refused() -> None:
    table = LatencyTable(runtime="ort", batch=1, groups=())
    with pytest.raises(BadArgument, match="before the training"):
        prune.GradualChannels(
            INPUTS, pace=prune.Pace(end=2), budget=prune.Milliseconds(fraction_kept=0.5, table=table)
        )


def test_calibration_may_be_read_once_only() -> None:
    once = (batch for batch in torch.randn(8, 3, 6, 6).split(4))
    shrink = hook(budget=prune.PerLayer(ratio=0.5), criterion=prune.Activation(), calibration=once)
    model = make()
    train(model, shrink)
    assert (len(shrink.plans) > 1, model[0].out_channels) == (True, 8)
