"""The network of ``gracile demo``: a small residual CNN for 8x8 digits.

It has what makes compression interesting - batch normalisation, a plain and a projected shortcut, a
stride - and trains in seconds.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument


class DemoBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation; a 1x1 projection where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels_in, height, width)`` to ``(batch, channels, height / stride, ...)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DemoNet(nn.Module):
    """A stem, two residual blocks (the second halves the picture and doubles the channels), a linear layer.

    Args:
        width: Channels of the stem and of the first block.
        classes: Outputs.

    Raises:
        BadArgument: ``width`` is below 1.

    Example:
        >>> import torch
        >>> DemoNet()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    input_shape = (1, 8, 8)

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        if width < 1:
            raise BadArgument("width", wanted="at least 1", found=f"{width=}")
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.block1 = DemoBlock(width, width, stride=1)
        self.block2 = DemoBlock(width, 2 * width, stride=2)
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 1, 8, 8)`` to logits ``(batch, classes)``."""
        x = F.relu(self.bn(self.stem(x)))
        x = self.block2(self.block1(x))
        return self.linear(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def demo_net(width: int = 32, classes: int = 10) -> DemoNet:
    """The demo network; 77,290 parameters at the default width."""
    return DemoNet(width, classes)
