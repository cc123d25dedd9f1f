"""Plans carried out with everything that keeps the accuracy."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gracile import prune, surgery
from gracile.errors import BadArgument


def half(net: nn.Module, inputs, **more):
    return prune.plan(net, inputs, budget=prune.PerLayer(ratio=0.5), leave=(), **more)


def error(small: nn.Module, net: nn.Module, data: torch.Tensor) -> float:
    with torch.no_grad():
        return float((small(data) - net(data)).square().mean())


def test_keeping_everything_is_the_same_model(net, inputs, data) -> None:
    plan = prune.plan(net, inputs, budget=prune.Macs(fraction_kept=1.0), leave=())
    same = prune.apply(net, plan, inputs=inputs, calibration=data)
    assert all(torch.equal(t, same.state_dict()[k]) for k, t in net.state_dict().items())


def test_switched_off_it_is_the_surgery_alone(net, inputs, data) -> None:
    plan = half(net, inputs)
    small = prune.apply(
        net, plan, inputs=inputs, calibration=data,
        carry_constants=False, reconstruct=False, reestimate_bn=False,
    )  # fmt: skip
    wanted = surgery.apply(net, plan).state_dict()
    assert all(torch.equal(t, wanted[k]) for k, t in small.state_dict().items())


def test_each_step_helps_and_the_input_stays(residual, inputs, data) -> None:
    plan = half(residual, inputs)
    before = copy.deepcopy(residual.state_dict())
    off = {"carry_constants": False, "reconstruct": False, "reestimate_bn": False}
    cut = prune.apply(residual, plan, inputs=inputs, calibration=data, **off)
    norms = prune.apply(residual, plan, inputs=inputs, calibration=data, **{**off, "reestimate_bn": True})
    whole = prune.apply(residual, plan, inputs=inputs, calibration=data)
    fresh = torch.randn(128, 2, 8, 8)
    assert error(whole, residual, fresh) < 0.5 * error(cut, residual, fresh)
    assert error(whole, residual, fresh) < error(norms, residual, fresh)
    assert not torch.equal(cut.norm3.running_var, norms.norm3.running_var)
    assert all(torch.equal(t, before[k]) for k, t in residual.state_dict().items())


def test_without_data_constants_are_carried_all_the_same(plain, inputs) -> None:
    nn.init.zeros_(plain.hidden.weight)
    plan = half(plain, inputs)
    small = prune.apply(plain, plan, inputs=inputs)
    fresh = torch.randn(4, 2, 8, 8)
    torch.testing.assert_close(small(fresh), plain(fresh), rtol=1e-4, atol=1e-5)


def test_it_is_deterministic_and_trains_on(residual, inputs, data) -> None:
    plan = half(residual, inputs, criterion=prune.Reconstruction(), calibration=data)
    one, two = (prune.apply(residual, plan, inputs=inputs, calibration=data) for _ in range(2))
    assert all(torch.equal(t, two.state_dict()[k]) for k, t in one.state_dict().items())
    one.train()(data).sum().backward()
    assert all(p.grad is not None for p in one.parameters())


def test_the_state_of_a_pruned_model_loads_into_the_surgery_alone(net, inputs, data) -> None:
    plan = half(net, inputs)
    small = prune.apply(net, plan, inputs=inputs, calibration=data)
    fresh = surgery.apply(net, plan)
    fresh.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(data), small(data))


def test_empty_data_is_refused(residual, inputs) -> None:
    with pytest.raises(BadArgument, match="calibration: wanted at least one input"):
        prune.apply(residual, half(residual, inputs), inputs=inputs, calibration=[])
