"""In-place calls become functional ones, and every name of what they changed shows it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.graph import capture_free_batch


class Net(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def whole(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True) + 1


def part(x: Tensor) -> Tensor:
    x.chunk(2, 1)[0].relu_()
    return x.exp()


@pytest.mark.parametrize("function", [whole, part])
def test_outputs_are_those_of_the_model(function) -> None:
    model, x = Net(function).eval(), torch.randn(4, 3, 2, 2)
    module = capture_free_batch(model, (x[:1],))
    written = [
        n for n in module.graph.nodes if n.op == "call_function" and str(n.target).endswith("_.default")
    ]
    assert not written
    module.recompile()  # the graph is what counts
    with torch.no_grad():
        assert torch.equal(module(x), model(x))
