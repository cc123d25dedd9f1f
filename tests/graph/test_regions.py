"""Layers inside autocast and gradient regions are layers like any other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gracile.graph import capture, capture_free_batch, cost, trace


class Regions(nn.Module):
    """Two layers, in one region inside another."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = self.first(x).relu_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
                x = self.second(x.float())
        return self.head(x.float().mean((2, 3)))


@pytest.fixture(params=[False, True])
def model(request) -> nn.Module:
    return Regions(request.param).eval()


def test_layers_in_regions_are_seen(model: nn.Module) -> None:
    x = torch.randn(1, 3, 6, 6)
    captured = capture(model, (x,))
    modules = [captured.module_of(n) for n in captured.graph.nodes if "conv2d" in str(n.target)]
    assert modules == ["first", "second"]
    assert cost(model, (x,)).macs == 16 * 8 * 27 + 16 * 4 * 8 + 8
    assert [g.name for g in trace(captured).groups] == ["first", "second"]
    with torch.no_grad():
        near = 1e-2 if model.enabled else 1e-6  # in the types of the tensors, without the casts of autocast
        torch.testing.assert_close(captured.program.module()(x), model(x), rtol=near, atol=near)


def test_any_batch_runs_through_regions(model: nn.Module) -> None:
    x = torch.randn(5, 3, 6, 6)
    module = capture_free_batch(model, (x[:1],))
    near = 1e-2 if model.enabled else 1e-6
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x), rtol=near, atol=near)
    assert sum("conv2d" in str(n.target) for n in module.graph.nodes) == 2


def test_a_region_may_give_the_outputs_and_write_into_views() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                x = self.conv(x)
                x[:, :4].relu_()
                return x

    model, x = Whole().eval(), torch.randn(4, 3, 2, 2)
    with torch.no_grad():
        assert torch.equal(capture(model, (x,)).program.module()(x), model(x))
        assert torch.equal(capture_free_batch(model, (x[:1],))(x), model(x))


def test_a_change_of_type_freezes_nothing() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).double().mean((2, 3)))

    found = trace(capture(Doubled(), (torch.randn(1, 3, 4, 4),)))
    assert [(g.name, g.units) for g in found.groups] == [("conv", 8)]
