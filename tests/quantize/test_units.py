"""What is fused, what carries a grid, what stays in float."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.nn import GatherChannels, ScatterChannels, attach_
from gracile.quantize.lower import lower
from gracile.quantize.units import find_units


def units_of(forward: object, *, width: int = 4) -> tuple[list[str], list[str], list[str]]:
    """Names of grid owners, of fused activations and of what runs in float."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
            self.fc = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)  # type: ignore[operator,no-any-return]

    found = find_units(lower(Net(), (torch.randn(1, 3, 8, 8),)))
    return (
        [n.name for n in found.owners],
        [n.name for n in found.fused if n in found.carried],
        [s.why.split()[0] for s in found.skipped],
    )


def test_convolution_and_relu_are_one_unit() -> None:
    owners, fused, floats = units_of(lambda m, x: m.b(F.relu(m.a(x))))
    assert owners == ["x", "relu", "conv2d_1"]
    assert fused == ["relu"]
    assert floats == []


@pytest.mark.parametrize("clip", [F.relu6, lambda x: x.clamp(0, 4), lambda x: F.hardtanh(x, 0.0, 2.0)])
def test_clips_from_zero_fuse_too(clip: object) -> None:
    owners, fused, _ = units_of(lambda m, x: m.b(clip(m.a(x))))  # type: ignore[operator]
    assert len(owners) == 3
    assert len(fused) == 1


def test_an_activation_that_does_not_clip_at_zero_stays_in_float() -> None:
    owners, fused, floats = units_of(lambda m, x: m.b(F.silu(m.a(x))))
    assert owners == ["x", "conv2d", "silu", "conv2d_1"]
    assert fused == []
    assert floats == ["silu"]


def test_a_value_with_two_readers_is_not_fused_into_one_of_them() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)  # type: ignore[operator]
        return m.b(F.relu(y)) + y  # type: ignore[operator,no-any-return]

    owners, fused, _ = units_of(forward)
    assert fused == []
    assert "conv2d" in owners


def test_sum_and_relu_are_one_unit_and_the_shortcut_keeps_its_grid() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))  # type: ignore[operator]
        short = F.pad(y[:, :2, ::2, ::2], (0, 0, 0, 0, 1, 1))
        y = F.relu(F.max_pool2d(m.b(y), 2) + short)  # type: ignore[operator]
        return m.fc(y.mean((2, 3)))  # type: ignore[operator,no-any-return]

    owners, fused, floats = units_of(forward)
    assert owners == ["x", "relu", "conv2d_1", "relu_1", "mean"]
    assert fused == ["relu", "relu_1"]
    assert floats == []


def test_the_last_linear_layer_gives_floats() -> None:
    owners, _, _ = units_of(lambda m, x: m.fc(m.a(x).mean((2, 3))))
    assert owners == ["x", "conv2d", "mean"]


def test_padding_with_other_numbers_leaves_the_grid() -> None:
    owners, _, floats = units_of(lambda m, x: m.b(F.pad(m.a(x), (1, 1, 1, 1), value=0.3)))
    assert owners == ["x", "conv2d", "pad", "conv2d_1"]
    assert floats == ["pad"]


def test_a_sum_that_only_floats_read_stays_in_float() -> None:
    owners, _, _ = units_of(lambda m, x: torch.softmax(m.a(x) + m.a(x), 1))
    assert "add" not in owners


def test_a_scatter_and_a_gather_keep_the_grid_of_what_they_move() -> None:
    conv, other = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
    attach_(conv, "scatter", ScatterChannels(torch.tensor([3, 0]), 4))
    attach_(other, "gather", GatherChannels(torch.tensor([1, 3]), 4))
    module = lower(nn.Sequential(conv, other), (torch.zeros(1, 4, 4, 4),))
    units = find_units(module)
    moves = [n for n in module.graph.nodes if n.name.startswith(("pad", "index_select"))]
    assert len(moves) == 3
    assert {units.carried[n].name for n in moves} == {"conv2d"}
    assert units.skipped == []
