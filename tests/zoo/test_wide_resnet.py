"""Wide residual networks against the paper's counts and a forward pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gracile.errors import BadArgument
from gracile.graph import cost
from gracile.zoo import WideBlock, WideResNet, wrn16_2, wrn28_10


def by_hand(depth: int, width: int) -> int:
    n = (depth - 4) // 6
    total, channels_in = 3 * 16 * 9, 16
    for stage in (16 * width, 32 * width, 64 * width):
        for block in range(n):
            first = channels_in if block == 0 else stage
            total += 2 * first + 9 * first * stage + 2 * stage + 9 * stage * stage
            total += first * stage if block == 0 else 0
        channels_in = stage
    return total + 2 * channels_in + 10 * channels_in + 10


def test_parameters_by_hand_and_as_published() -> None:
    assert sum(p.numel() for p in wrn16_2().parameters()) == by_hand(16, 2) == 691_674
    with torch.device("meta"):
        count = sum(p.numel() for p in wrn28_10().parameters())
    assert count == by_hand(28, 10) == 36_479_194  # "36.5M", table 4 of the paper


def test_macs_of_the_first_layers() -> None:
    layers = cost(wrn16_2(), (torch.zeros(1, 3, 32, 32),)).layers
    assert layers[0].macs == 3 * 16 * 9 * 32 * 32
    assert layers[1].macs == 16 * 32 * 9 * 32 * 32


def test_a_block_normalises_first_and_projects_what_is_activated() -> None:
    block = WideBlock(4, 6, stride=2).eval()
    x = torch.randn(2, 4, 8, 8)
    active = F.relu(block.bn1(x))
    inner = F.relu(block.bn2(F.conv2d(active, block.conv1.weight, stride=2, padding=1)))
    assert block.shortcut is not None
    short = F.conv2d(active, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x), short + F.conv2d(inner, block.conv2.weight, padding=1))


def test_an_unchanged_shape_adds_the_input_itself() -> None:
    block = WideBlock(4, 4, stride=1).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_dropout_acts_in_training_only() -> None:
    block, x = WideBlock(4, 4, stride=1, dropout=0.5), torch.randn(2, 4, 8, 8)
    block.train()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 18, "width": 2}, "depth: wanted 6 n .* found depth=18"),
        ({"depth": 4, "width": 2}, "found depth=4"),
        ({"depth": 16, "width": 0}, "width: wanted at least 1"),
        ({"depth": 16, "width": 1, "dropout": 1.0}, "dropout: wanted at least 0, below 1"),
    ],
)
def test_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        WideResNet(**arguments)  # type: ignore[arg-type]
