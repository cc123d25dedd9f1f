"""Sums with zeros and repeated ReLUs go; everything that could change a number stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gracile.graph import capture


class Sum(nn.Module):
    """What is added to ``relu(x)`` is for the test to say."""

    def __init__(self, other) -> None:
        super().__init__()
        self.other = other
        self.gamma = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return (x + self.other(self, x)).relu()


def kinds(other) -> list[str]:
    captured = capture(Sum(other), (torch.randn(2, 3, 4),))
    return [str(n.target).split(".")[1] for n in captured.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize(
    "other",
    [
        lambda net, x: x.new_zeros(1, 1, 1),
        lambda net, x: x.new_zeros(x.shape),
        lambda net, x: torch.zeros_like(x) * net.gamma,
        lambda net, x: x.new_zeros(1, 1, 1).transpose(1, 2).relu(),
    ],
)
def test_zeros_go_however_they_came(other) -> None:
    assert kinds(other) == ["relu"]


@pytest.mark.parametrize(
    "other",
    [
        lambda net, x: x.new_ones(1, 1, 1),
        lambda net, x: x.new_zeros(1, 1, 1) + net.gamma,
        lambda net, x: x.new_zeros(5, 1, 1, 1),  # the sum has more axes than x
        lambda net, x: x.new_zeros(1, 1, 1, dtype=torch.float64),  # and another type
        lambda net, x: x.new_zeros(1, 1, 1).exp(),
    ],
)
def test_what_is_not_zero_or_changes_the_sum_stays(other) -> None:
    assert "add" in kinds(other)


def test_a_relu_of_something_else_stays() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Hardtanh(), nn.ReLU(), nn.ReLU())
    captured = capture(net, (torch.randn(2, 3),))
    found = [str(n.target).split(".")[1] for n in captured.graph.nodes if n.op == "call_function"]
    assert found == ["relu", "hardtanh", "relu"]


class Runs(nn.Module):
    """Any function of the input."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def scaled(x: Tensor) -> Tensor:
    return torch.add(torch.zeros_like(x), x, alpha=2.0)


def shifted_in_time(x: Tensor) -> Tensor:
    late = torch.zeros_like(x)
    late[:, 1:] = x[:, :-1]
    return late + x


def collected(x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for factor in (1.0, 2.0):
        total.add_(x * factor)
    return total.exp()


def changed_afterwards(x: Tensor) -> Tensor:
    x = x.exp()
    y = torch.zeros_like(x) + x
    y.mul_(2)
    return y + x


def source_changed_afterwards(x: Tensor) -> Tensor:
    x = x.exp()
    y = torch.zeros_like(x) + x
    x.mul_(2)
    return y + x


def read_by_its_old_name(x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    first = total.view(-1)
    total.add_(x)
    return first.exp()


def lowered_between(x: Tensor) -> Tensor:
    x = x.relu()
    x.sub_(0.5)
    return x.relu()


@pytest.mark.parametrize(
    "function",
    [
        scaled,
        shifted_in_time,
        collected,
        changed_afterwards,
        source_changed_afterwards,
        read_by_its_old_name,
        lowered_between,
    ],
)
def test_outputs_stay_where_memory_is_shared(function) -> None:
    x = torch.randn(2, 3, 4)
    captured = capture(Runs(function), (x.clone(),))
    assert torch.equal(captured.program.module()(x.clone()), function(x.clone()))


def test_a_sum_in_place_with_a_branch_that_was_removed_goes() -> None:
    def block(x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape)
        out += x
        return out.relu_()

    captured = capture(Runs(lambda x: block(block(x.relu()))), (torch.randn(2, 3),))
    found = [str(n.target).split(".")[1] for n in captured.graph.nodes if n.op == "call_function"]
    assert found == ["relu"]
