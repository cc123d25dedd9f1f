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
