"""Costs against formulas written by hand and PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gracile.graph import capture, cost, trace
from gracile.records import Bytes, PrunePlan
from gracile.surgery import apply, edits
from gracile.testing.nets import NETS, net


def test_convolutions_by_hand() -> None:
    x = torch.zeros(1, 6, 9, 9)
    assert cost(nn.Conv2d(6, 8, 3, stride=2, groups=2), (x,)).macs == 4 * 4 * 8 * 3 * 9
    assert cost(nn.ConvTranspose2d(6, 8, 2, stride=2), (x,)).macs == 9 * 9 * 6 * 8 * 4
    assert cost(nn.Conv1d(6, 8, 3), (torch.zeros(1, 6, 9),)).macs == 7 * 8 * 6 * 3
    assert cost(nn.Conv3d(2, 4, 3), (torch.zeros(1, 2, 5, 5, 5),)).macs == 27 * 4 * 2 * 27
    assert cost(nn.Linear(5, 7), (torch.zeros(1, 3, 5),)).macs == 3 * 5 * 7


@pytest.mark.parametrize("name", NETS)
def test_macs_are_half_of_the_flops_that_pytorch_counts(name: str) -> None:
    model, inputs = net(name)
    plain_attention = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the CPU's fused kernel
    with plain_attention, FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    found = cost(model, inputs)
    assert 2 * found.macs == counter.get_total_flops()
    assert sum(layer.macs for layer in found.layers) == found.macs


@pytest.mark.parametrize("name", NETS)
def test_params_are_all_parameters_once(name: str) -> None:
    model, inputs = net(name)
    assert cost(model, inputs).params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NETS)
def test_cost_after_a_removal_is_that_of_the_narrowed_model(name: str) -> None:
    model, inputs = net(name)
    found = trace(capture(model, inputs))
    removed = {g.name: [0] for g in found.groups}
    plan = PrunePlan(
        groups=(), slices=found.slices(removed), attributes=edits(model, found, found.gone(removed))
    )
    assert found.cost(removed) == cost(apply(model, plan), inputs)
    assert found.cost(removed).macs < found.cost().macs


def test_activation_bytes_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    found = cost(model, (torch.zeros(1, 1, 2, 2),))
    assert found.activation_bytes == 4 * (8 + 8 + 3)  # convolution, activation, linear; flatten is a view
    assert found.peak_activation_bytes == 4 * (8 + 8)  # convolution and activation


class Twice(nn.Module):
    """Each layer has two names."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.conv, self.head, self.first = nn.Conv2d(3, 8, 3), nn.Linear(8, 2), first
        self.body = nn.Sequential(self.conv, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu() if self.first else self.body(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("first", [False, True])
def test_parameters_with_two_names_count_once(first: bool) -> None:
    model, inputs = Twice(first), (torch.zeros(1, 3, 6, 6),)
    found = cost(model, inputs)
    assert found.params == sum(p.numel() for p in model.parameters()) == 8 * 27 + 8 + 18
    assert [layer.params for layer in found.layers] == [8 * 27 + 8, 18]
    traced = trace(capture(model, inputs))
    assert [s.where for s in traced.frozen] == ["head"]  # the other name is not a module that stands idle
    assert traced.cost({traced.groups[0].name: [0, 1]}).params == 6 * 27 + 6 + 14


def test_tied_layers_share_their_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    found = cost(model, (torch.zeros(1, 4),))
    assert (found.params, [layer.params for layer in found.layers]) == (20, [20, 0])


def test_bytes_of_a_tied_weight_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert Bytes(at_most=99, weight_bits=8).of(cost(model, (torch.zeros(1, 4),))) == 16 + 4 * 8
