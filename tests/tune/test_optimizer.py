"""The named optimizers, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gracile.tune import OPTIMIZERS, TuneConfig, make_optimizer


def _model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_named_optimizer_gets_rate_and_decay(name: str) -> None:
    optimizer = make_optimizer(_model(), TuneConfig(optimizer=name, lr=0.02, weight_decay=0.3))
    assert type(optimizer).__name__.lower() == name
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.02, 0.3, 4)


def test_norms_and_biases_can_be_spared() -> None:
    model = _model()
    optimizer = make_optimizer(model, TuneConfig(decay_norms=False, weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_frozen_parameters_are_left_out() -> None:
    model = _model()
    model[0].requires_grad_(False)
    (group,) = make_optimizer(model, TuneConfig()).param_groups
    assert len(group["params"]) == 2


def test_sgd_step_is_the_formula() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    model = nn.ParameterList([weight])
    optimizer = make_optimizer(model, TuneConfig(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.5))
    velocity, value = 0.0, 2.0
    for gradient in (1.0, -3.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.5 * value
        value -= 0.1 * velocity
    assert weight.item() == pytest.approx(value)
