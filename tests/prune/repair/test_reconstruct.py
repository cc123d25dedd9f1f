"""Refitting what stands behind removed channels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gracile import prune, surgery
from gracile.errors import BadArgument, NonFiniteError, UnsupportedOperation
from gracile.graph import capture, trace
from gracile.prune import reconstruct_
from gracile.prune.repair.least_squares import fit
from gracile.records import PrunePlan


def halves(net: nn.Module, inputs, leave=("first", "last")) -> PrunePlan:
    return prune.plan(net, inputs, budget=prune.PerLayer(ratio=0.5), leave=leave)


@pytest.fixture
def exact(monkeypatch) -> None:
    """No ridge, all positions."""
    monkeypatch.setattr("gracile.prune.repair.reconstruct.ridge_of", lambda xx, rows: 0.0)
    monkeypatch.setattr("gracile.prune.layers.ROWS_PER_COLUMN", 10**9)


def test_channels_that_others_express_are_replaced_without_error(net, inputs, data, exact) -> None:
    found = trace(capture(net, inputs))
    state = dict(net.named_parameters()) | dict(net.named_buffers())
    removed = {g.name: tuple(range(g.units // 2)) for g in found.groups}
    with torch.no_grad():
        for g in found.groups:
            half = g.units // 2
            for slot in g.slots:  # the first half becomes a copy of the second
                if slot.role != "read":
                    rows = state[slot.param].movedim(slot.axis, 0)
                    source, goal = slot.index[g.units - half :], slot.index[:half]
                    copied = rows[torch.from_numpy(source.reshape(-1))].clone()
                    rows[torch.from_numpy(goal.reshape(-1))] = copied
        wanted = net(data)
    plan = PrunePlan(groups=(), slices=found.slices(removed))
    small = surgery.apply(net, plan)
    with torch.no_grad():
        assert not torch.allclose(small(data), wanted, atol=1e-3)
    refits = reconstruct_(small, net, plan, data)
    assert refits
    with torch.no_grad():
        torch.testing.assert_close(small(data), wanted, rtol=1e-2, atol=2e-3)


def test_a_linear_consumer_gets_numpys_solution(data, exact) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 10), nn.ReLU(), nn.Linear(10, 3)).eval()
    plan = halves(net, (torch.zeros(1, 2, 8, 8),), leave=())
    small = surgery.apply(net, plan)
    with torch.no_grad():
        hidden, target = small[:3](data), net(data)
    (refit,) = reconstruct_(small, net, plan, data)
    x = np.c_[hidden.double().numpy(), np.ones(len(data))]
    wanted = np.linalg.lstsq(x, target.double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(small[3].weight.detach().numpy(), wanted[:-1].T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(small[3].bias.detach().numpy(), wanted[-1], rtol=1e-3, atol=1e-4)
    left = target.numpy() - x @ wanted
    assert refit.layer == "3"
    assert refit.after == pytest.approx(float((left**2).sum() / (target.numpy().var(0).sum() * 96)), rel=1e-2)
    assert refit.after < refit.before


def test_every_kind_of_net_comes_closer(net, inputs, data) -> None:
    plan = halves(net, inputs, leave=())
    small = surgery.apply(net, plan)
    with torch.no_grad():
        wanted = net(data)
        before = float((small(data) - wanted).square().mean())
        refits = reconstruct_(small, net, plan, data)
        after = float((small(data) - wanted).square().mean())
    assert after < 0.5 * before
    assert all(r.after <= r.before * (1 + 1e-6) for r in refits)
    fresh = torch.randn(64, 2, 8, 8)
    with torch.no_grad():
        assert float((small(fresh) - net(fresh)).square().mean()) < before


def test_the_second_layer_of_a_block_makes_up_for_the_trunks_error(residual, inputs, data) -> None:
    plan = halves(residual, inputs)
    small = surgery.apply(residual, plan)
    refits = {r.layer: r for r in reconstruct_(small, residual, plan, data)}
    assert set(refits) == {"conv2", "conv3", "conv4", "down", "head"}
    assert list(refits).index("down") < list(refits).index("conv4")  # so that conv4 can make up for it
    # conv1 and the stem read what has not changed, so they stay as they were.
    kept = list(plan.groups[0].keep)
    assert torch.equal(small.conv1.weight, residual.conv1.weight[kept])
    assert torch.equal(small.stem.weight, residual.stem.weight)


def test_statistics_behind_refitted_layers_stay_and_behind_depthwise_are_new(depthwise, inputs, data) -> None:
    found = trace(capture(depthwise, inputs))
    removed = {"body.0": (0,), "body.2": (1, 3, 5)}
    plan = PrunePlan(groups=(), slices=found.slices(removed))
    kept = [i for i in range(12) if i not in (1, 3, 5)]
    for flag in (True, False):
        small = surgery.apply(depthwise, plan)
        reconstruct_(small, depthwise, plan, data, kinds=("conv", "linear"), reestimate_bn=flag)
        assert torch.equal(small.body[3].running_var, depthwise.body[3].running_var[kept])
        stayed = torch.equal(small.body[6].running_var, depthwise.body[6].running_var[kept])
        assert stayed is not flag
        if flag:
            with torch.no_grad():
                new, old = small.body[:6](data), depthwise.body[:6](data)[:, kept]
            shift, ratio = new.mean((0, 2, 3)) - old.mean((0, 2, 3)), new.var((0, 2, 3)) / old.var((0, 2, 3))
            wanted = depthwise.body[6].running_mean[kept] + shift
            torch.testing.assert_close(small.body[6].running_mean, wanted, rtol=1e-3, atol=1e-4)
            wanted = depthwise.body[6].running_var[kept] * ratio.nan_to_num(1.0)  # a dead channel stays
            torch.testing.assert_close(small.body[6].running_var, wanted, rtol=1e-3, atol=1e-4)


class Doubled(nn.Module):
    """A convolution whose outputs say everything twice, behind them a consumer that loses nothing."""

    def __init__(self, consumer: nn.Module) -> None:
        super().__init__()
        self.write, self.consumer = nn.Conv2d(2, 8, 3, padding=1), consumer

    def forward(self, x: Tensor) -> Tensor:
        return self.consumer(self.write(x).relu())


CONSUMERS = {
    "grouped": lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2),
    "dilated": lambda: nn.Conv2d(8, 4, 3, padding=2, dilation=2, groups=2, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1, output_padding=1),
    "transposed without overlap": lambda: nn.ConvTranspose2d(8, 3, 2, stride=3, dilation=2),
}


@pytest.mark.parametrize("kind", CONSUMERS)
def test_grouped_and_transposed_consumers_get_what_redundant_channels_said(kind, data, exact) -> None:
    net = Doubled(CONSUMERS[kind]()).eval()
    with torch.no_grad():
        for tensor in (net.write.weight, net.write.bias):
            tensor[1::2] = tensor[::2]
        wanted = net(data)
    found = trace(capture(net, (data[:1],)))
    (group,) = [g for g in found.groups if g.readers]
    odd = [u for u in range(group.units) if group.writers[0].index[u, 0] % 2]
    plan = PrunePlan(groups=(), slices=found.slices({group.name: odd}))
    small = surgery.apply(net, plan)
    with torch.no_grad():
        assert not torch.allclose(small(data), wanted, atol=1e-3)
    (refit,) = reconstruct_(small, net, plan, data)
    assert refit.after < 1e-5 < refit.before
    with torch.no_grad():
        torch.testing.assert_close(small(data), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["grouped", "transposed"])
def test_kinds_can_be_switched_off(kind, data) -> None:
    net = Doubled(CONSUMERS[kind]()).eval()
    plan = halves(net, (data[:1],), leave=())
    small = surgery.apply(net, plan)
    assert reconstruct_(small, net, plan, data, kinds=("conv", "linear")) == ()
    assert [r.layer for r in reconstruct_(small, net, plan, data, kinds=(kind,))] == ["consumer"]
    with pytest.raises(BadArgument, match="kinds: wanted some of conv, linear"):
        reconstruct_(small, net, plan, data, kinds=("dense",))


def test_a_depthwise_layer_gets_numpys_solution_channel_by_channel(data, exact) -> None:
    first, depth = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
    net = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), first, nn.Tanh(), depth).eval()
    found = trace(capture(net, (data[:1],)))
    plan = PrunePlan(groups=(), slices=found.slices({"0": (0, 3)}))
    small = surgery.apply(net, plan)
    reconstruct_(small, net, plan, data, kinds=("grouped",))
    with torch.no_grad():
        hidden, target = small[:4](data).double(), net(data).double()
    for channel in (0, 5):
        rows = torch.nn.functional.unfold(hidden[:, channel : channel + 1], 3).mT.reshape(-1, 9).numpy()
        x = np.c_[rows, np.ones(len(rows))]
        wanted = np.linalg.lstsq(x, target[:, channel].reshape(-1).numpy(), rcond=None)[0]
        found_w = small[4].weight[channel].detach().reshape(-1).numpy()
        np.testing.assert_allclose(found_w, wanted[:-1], rtol=1e-2, atol=1e-3)
        assert small[4].bias[channel].item() == pytest.approx(wanted[-1], abs=1e-3)


def test_a_consumer_behind_a_concatenation_gets_what_redundant_channels_said(concat, inputs, data, exact):
    with torch.no_grad():
        for tensor in (concat.left.weight, concat.left.bias):
            tensor[3:] = tensor[:3]
        wanted = concat(data)
    found = trace(capture(concat, inputs))
    plan = PrunePlan(groups=(), slices=found.slices({"left": (3, 4, 5)}))
    small = surgery.apply(concat, plan)
    refits = {r.layer: r for r in reconstruct_(small, concat, plan, data)}
    assert refits["join"].after < 1e-6 < refits["join"].before
    with torch.no_grad():
        torch.testing.assert_close(small(data), wanted, rtol=1e-3, atol=1e-4)


def test_nothing_removed_means_nothing_refitted(residual, data) -> None:
    small = copy.deepcopy(residual)
    assert reconstruct_(small, residual, PrunePlan(groups=(), slices=()), data) == ()
    assert all(torch.equal(t, small.state_dict()[k]) for k, t in residual.state_dict().items())


def test_the_original_and_modes_stay(residual, inputs, data) -> None:
    plan = halves(residual, inputs)
    before = copy.deepcopy(residual.state_dict())
    small = surgery.apply(residual, plan).train()
    reconstruct_(small, residual, plan, data)
    assert all(torch.equal(t, before[k]) for k, t in residual.state_dict().items())
    assert small.training
    assert small.conv2.weight.requires_grad


def test_fewer_images_are_used_where_memory_is_short(residual, inputs, data, monkeypatch) -> None:
    plan = halves(residual, inputs)
    seen = []

    def noted(xx: Tensor, xy: Tensor, towards: Tensor, pull, *, intercept: bool = True) -> Tensor:
        seen.append(len(xx))
        return fit(xx, xy, towards, pull, intercept=intercept)

    monkeypatch.setattr("gracile.prune.repair.reconstruct.fit", noted)
    few, one = surgery.apply(residual, plan), surgery.apply(residual, plan)
    reconstruct_(few, residual, plan, data, memory_bytes=1)
    reconstruct_(one, residual, plan, data[:32])
    assert seen
    assert all(torch.equal(t, one.state_dict()[k]) for k, t in few.state_dict().items())


class Turns(nn.Module):
    """Takes another path at another width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x.relu() if self.a.out_features == 8 else x.relu() + 0.0)


def test_another_path_at_another_width_is_said() -> None:
    net = Turns().eval()
    plan = halves(net, (torch.zeros(1, 4),), leave=())
    with pytest.raises(UnsupportedOperation, match="reconstruct=False"):
        reconstruct_(surgery.apply(net, plan), net, plan, torch.randn(8, 4))


def test_activations_that_are_no_numbers_are_refused(residual, inputs) -> None:
    plan = halves(residual, inputs)
    with pytest.raises(NonFiniteError, match="conv2: wanted finite activations"):
        reconstruct_(surgery.apply(residual, plan), residual, plan, torch.full((4, 2, 8, 8), float("inf")))
