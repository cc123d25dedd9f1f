"""CIFAR residual networks against the counts and weights of their source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gracile.errors import BadArgument
from gracile.zoo import (
    BasicBlock,
    CifarResNet,
    PadShortcut,
    read_weights,
    resnet20,
    resnet20b,
    resnet32,
    resnet44,
    resnet56,
    resnet56b,
    resnet110,
)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (resnet20, 269_722),
        (resnet32, 464_154),
        (resnet44, 658_586),
        (resnet56, 853_018),
        (resnet110, 1_727_962),
        (resnet20b, 269_722 + 16 * 32 + 64 + 32 * 64 + 128),
        (resnet56b, 853_018 + 16 * 32 + 64 + 32 * 64 + 128),
    ],
)
def test_parameter_counts(build: Callable[[], nn.Module], count: int) -> None:
    assert parameters(build()) == count


def test_depth_counts_layers_with_weights() -> None:
    convolutions = [m for m in resnet56().modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == 56


def test_shortcut_takes_every_second_pixel_and_pads_both_sides() -> None:
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    y = PadShortcut(stride=2, before=1, after=2)(x)
    assert y.shape == (2, 6, 2, 2)
    for row in range(2):
        for column in range(2):
            assert torch.equal(y[:, 1:4, row, column], x[:, :, 2 * row, 2 * column])
    assert y[:, 0].abs().max() == 0
    assert y[:, 4:].abs().max() == 0


def test_a_block_with_silent_convolutions_is_its_shortcut() -> None:
    block = BasicBlock(4, 8, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(block(x)[:, 2:6], x[:, :, ::2, ::2])


def test_option_b_projects_where_the_shape_changes_and_nowhere_else() -> None:
    model = resnet20b().eval()
    kinds = [type(block.shortcut) for stage in (model.layer1, model.layer2, model.layer3) for block in stage]
    projected = [i for i, kind in enumerate(kinds) if kind is nn.Sequential]
    assert projected == [3, 6]
    block = model.layer2[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 6, 6)
    by_hand = nn.functional.conv2d(x, block.shortcut[0].weight, stride=2) / (1 + block.bn2.eps) ** 0.5
    torch.testing.assert_close(block(x), by_hand.relu())


def test_unknown_option() -> None:
    with pytest.raises(BadArgument, match="option: wanted A or B, found option='C'"):
        CifarResNet(20, option="C")


def test_keys_and_shapes_of_published_weights(data_root: Path) -> None:
    for depth in (20, 56):
        published = read_weights(data_root / "weights" / f"cifar10_resnet{depth}.safetensors")
        ours = CifarResNet(depth).state_dict()
        counters = {name for name in ours if name.endswith("num_batches_tracked")}
        assert set(published) == set(ours) - counters
        assert all(published[name].shape == ours[name].shape for name in published)


@pytest.mark.parametrize("depth", [7, 21, 2])
def test_bad_depth(depth: int) -> None:
    with pytest.raises(BadArgument, match=f"depth: wanted 6 n \\+ 2 .*found depth={depth}"):
        CifarResNet(depth)


@pytest.mark.parametrize("widths", [(16, 32), (32, 16, 64), (0, 1, 2)])
def test_bad_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(BadArgument, match="widths: wanted three widths, not decreasing"):
        CifarResNet(20, widths=widths)
