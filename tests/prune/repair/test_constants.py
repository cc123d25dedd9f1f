"""Carried constants: exact where they can be, stated where they cannot."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gracile import fold, prune, surgery
from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.prune import carry_constants_
from gracile.records import GroupPlan, PrunePlan


def removal(net: nn.Module, inputs, names: list[str], zero: bool = True) -> tuple[PrunePlan, object]:
    """Half of each named group goes; with ``zero`` the weights that write it are zero already."""
    found = trace(capture(net, inputs))
    removed = {n: list(range(0, found.group(n).units, 2)) for n in names}
    state = dict(net.named_parameters())
    with torch.no_grad():
        for name, units in removed.items():
            for slot in found.group(name).writers if zero else ():
                state[slot.param].index_fill_(slot.axis, torch.from_numpy(slot.index[units].reshape(-1)), 0)
    groups = tuple(
        GroupPlan(name=n, units=found.group(n).units,
                  keep=tuple(u for u in range(found.group(n).units) if u not in units))
        for n, units in removed.items()
    )  # fmt: skip
    return PrunePlan(groups=groups, slices=found.slices(removed)), found


@pytest.mark.parametrize("names", [["body.0"], ["body.3"], ["hidden"], ["body.0", "body.3", "hidden"]])
def test_without_padding_channels_of_zero_weight_go_exactly(plain, inputs, names) -> None:
    plan, found = removal(plain, inputs, names)
    x = torch.randn(4, 2, 8, 8)
    wanted = plain(x)
    assert not torch.allclose(surgery.apply(plain, plan)(x), wanted, atol=1e-3)
    carried = carry_constants_(plain, found, plan)
    assert len(carried) == len(names)
    assert all(c.into and c.border_error < 1e-9 < c.largest for c in carried)
    torch.testing.assert_close(surgery.apply(plain, plan)(x), wanted, rtol=1e-4, atol=1e-5)


def test_through_concatenation_and_pooling(concat, inputs) -> None:
    plan, found = removal(concat, inputs, ["left", "right"])
    x = torch.randn(4, 2, 8, 8)
    wanted = concat(x)
    (carried,) = carry_constants_(concat, found, plan)
    assert (carried.layer, carried.into) == ("join", "join.bias")
    torch.testing.assert_close(surgery.apply(concat, plan)(x), wanted, rtol=1e-4, atol=1e-5)


def test_with_padding_the_interior_is_exact_and_the_border_error_is_true(inputs) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 3, 3, padding=1)).eval()
    plan, found = removal(net, inputs, ["0"])
    x = torch.randn(2, 2, 8, 8)
    wanted = net(x)
    (carried,) = carry_constants_(net, found, plan)
    difference = (surgery.apply(net, plan)(x) - wanted).abs()
    assert difference[:, :, 1:-1, 1:-1].max().item() < 1e-5
    assert difference.max().item() == pytest.approx(carried.border_error, rel=1e-3)


def test_a_layer_without_bias_hands_it_to_the_norm_behind_it(residual, inputs) -> None:
    plan, found = removal(residual, inputs, ["conv1"])
    before = residual.norm2.running_mean.clone()
    x = torch.randn(2, 2, 8, 8)
    wanted = residual.norm2(residual.conv2(residual.norm1(residual.conv1(x0 := stem(residual, x))).relu()))
    (carried,) = carry_constants_(residual, found, plan)
    assert carried.into == "norm2.running_mean"
    assert not torch.equal(residual.norm2.running_mean, before)
    small = surgery.apply(residual, plan)
    got = small.norm2(small.conv2(small.norm1(small.conv1(x0)).relu()))
    torch.testing.assert_close(got[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-5)


def stem(net, x: Tensor) -> Tensor:
    return net.norm0(net.stem(x)).relu()


def test_weights_that_are_not_zero_leave_the_norms_shift(inputs) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    nn.init.normal_(net[1].bias)
    nn.init.normal_(net[1].running_mean)
    plan, found = removal(net, inputs, ["0"], zero=False)
    weight, bias = net[3].weight.detach().clone(), net[3].bias.detach().clone()
    carry_constants_(net, found, plan)
    gone = list(plan.groups[0].removed)
    wanted = bias + weight[:, gone, 0, 0] @ net[1].bias[gone].relu()
    torch.testing.assert_close(net[3].bias, nn.Parameter(wanted))


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.write, self.gate, self.read = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 1, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.write(x) * self.gate(x))


def test_what_depends_on_the_input_is_not_carried(inputs) -> None:
    net = Gate().eval()
    plan, found = removal(net, inputs, ["write"])
    before = copy.deepcopy(net.state_dict())
    (carried,) = carry_constants_(net, found, plan)
    assert (carried.into, carried.why) == ("", "what it gets from removed channels depends on the input")
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())


def test_a_layer_with_nowhere_to_put_it_says_so(inputs) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1, bias=False), nn.ReLU()).eval()
    plan, found = removal(net, inputs, ["0"])
    (carried,) = carry_constants_(net, found, plan)
    assert carried.why == "it has neither a bias nor a batch norm behind it"


def test_depthwise_in_between(depthwise, inputs) -> None:
    plan, found = removal(depthwise, inputs, ["body.2"])
    x = torch.randn(2, 2, 8, 8)
    wanted = depthwise(x)
    without = (surgery.apply(depthwise, plan)(x) - wanted).abs().max()
    (carried,) = carry_constants_(depthwise, found, plan)
    with_it = (surgery.apply(depthwise, plan)(x) - wanted).abs().max()
    assert carried.layer == "body.8"
    assert carried.border_error > 0
    assert with_it < 0.5 * without


def test_zero_then_remove_is_exact_up_to_the_border(net, inputs) -> None:
    names = [g.name for g in trace(capture(net, inputs)).groups if g.readers]
    plan, _ = removal(net, inputs, names)
    x = torch.randn(4, 2, 8, 8)
    with torch.no_grad():
        wanted = net(x)
        small = prune.apply(net, plan, inputs=inputs, carry_constants="exact")
        torch.testing.assert_close(small(x), wanted, rtol=1e-4, atol=1e-5)
        nearest = prune.apply(net, plan, inputs=inputs, carry_constants="nearest")(x)
        assert (type(net).__name__ == "Plain") is torch.allclose(nearest, wanted, rtol=1e-4, atol=1e-5)
        folded = fold.apply(small, fold.plan(small, inputs))
        torch.testing.assert_close(folded(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "consumer",
    [
        nn.Conv2d(4, 3, 3, padding=1),
        nn.Conv2d(4, 3, (5, 3), padding=(2, 0), bias=False),
        nn.Conv2d(4, 3, 3, stride=2, padding=1),
        nn.Conv2d(4, 3, 3, padding=2, dilation=2),
        nn.Conv2d(4, 3, 3, padding="same"),
        nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1),
    ],
    ids=str,
)
def test_every_kernel_stride_padding_and_dilation_is_exact(consumer) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Sigmoid(), consumer).eval()
    inputs = (torch.zeros(1, 2, 12, 10),)
    plan, _ = removal(net, inputs, ["0"])
    x = torch.randn(3, 2, 12, 10)
    with torch.no_grad():
        small = prune.apply(net, plan, inputs=inputs, carry_constants="exact")
        torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)
    assert set(small.state_dict()) - set(net.state_dict()) == {"2.border.table"}


def test_the_map_is_small_and_serves_other_image_sizes() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 3, 3, stride=2, padding=1)).eval()
    inputs = (torch.zeros(1, 2, 32, 32),)
    plan, _ = removal(net, inputs, ["0"])
    small = prune.apply(net, plan, inputs=inputs, carry_constants="exact")
    assert small[2].border.table.shape == (3, 2, 2)
    x = torch.randn(2, 2, 48, 20)
    with torch.no_grad():
        torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)


def test_removing_twice_adds_the_maps_and_cuts_them(inputs) -> None:
    net = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Sigmoid(), nn.Conv2d(6, 4, 3, padding=1), nn.Tanh(),
                        nn.Conv2d(4, 3, 5, padding=2)).eval()  # fmt: skip
    with torch.no_grad():
        net[0].weight[[0, 2, 5]] = 0
        net[2].weight[1] = 0
    x = torch.randn(2, 2, 8, 8)
    wanted, small = net(x), net
    for removed in ({"0": [0]}, {"0": [1, 4], "2": [1]}):
        found = trace(capture(small, inputs))
        groups = tuple(
            GroupPlan(name=n, units=found.group(n).units,
                      keep=tuple(i for i in range(found.group(n).units) if i not in gone))
            for n, gone in removed.items()
        )  # fmt: skip
        plan = PrunePlan(groups=groups, slices=found.slices(removed))
        small = prune.apply(small, plan, inputs=inputs, carry_constants="exact")
    torch.testing.assert_close(small(x), wanted, rtol=1e-4, atol=1e-5)
    assert small[2].border.table.shape[0] == 3


def test_a_layer_with_nowhere_to_put_it_gets_the_whole_map(inputs) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1, bias=False), nn.ReLU()).eval()
    plan, _ = removal(net, inputs, ["0"])
    x = torch.randn(2, 2, 8, 8)
    small = prune.apply(net, plan, inputs=inputs, carry_constants="exact")
    torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)
    assert small[1].border.table.shape == (3, 1, 1)


def test_a_refit_knows_of_the_maps(residual, inputs, data) -> None:
    plan, _ = removal(residual, inputs, ["conv1", "conv3"])
    with torch.no_grad():
        small = prune.apply(residual, plan, inputs=inputs, calibration=data, carry_constants="exact")
        torch.testing.assert_close(small(data), residual(data), rtol=1e-3, atol=1e-4)


def test_a_choice_that_is_not_known_is_refused(residual, inputs) -> None:
    plan, _ = removal(residual, inputs, ["conv1"])
    with pytest.raises(BadArgument, match="carry_constants: wanted 'nearest', 'exact' or False"):
        prune.apply(residual, plan, inputs=inputs, carry_constants="exactly")


def test_carrying_twice_the_same_is_deterministic(residual, inputs) -> None:
    plan, found = removal(residual, inputs, ["conv1", "conv3"])
    other = copy.deepcopy(residual)
    assert carry_constants_(residual, found, plan) == carry_constants_(other, found, plan)
    for key, tensor in other.state_dict().items():
        assert np.array_equal(tensor.numpy(), residual.state_dict()[key].numpy())


class Recurrent(nn.Module):
    """Its first state is made in a type that is written in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 6)
        self.lstm, self.out = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.b(self.a(x).relu()))[0])


class InFloat(nn.Module):
    """Code that insists on float32."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.float()).relu())


@pytest.mark.parametrize("make", [Recurrent, InFloat])
def test_code_that_names_a_type(make) -> None:
    torch.manual_seed(0)
    net = make().eval()
    x = torch.randn(3, 5, 4)
    plan, found = removal(net, (x[:1],), ["a"])
    wanted = net(x)
    carried = carry_constants_(net, found, plan)
    assert [c.into for c in carried] == ["b.bias"]
    torch.testing.assert_close(surgery.apply(net, plan)(x), wanted, rtol=1e-4, atol=1e-5)
