"""Wide residual networks for CIFAR.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146, table 1 and section 3:
``depth = 6 n + 4`` layers, three stages of ``n`` blocks with 16 k, 32 k and 64 k channels; in a block batch
norm and ReLU come before each 3x3 convolution; where the shape changes, a 1x1 convolution of the activated
input is the shortcut.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument


class WideBlock(nn.Module):
    """Batch norm, ReLU and convolution, twice; a 1x1 shortcut where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels_in, height, width)`` to ``(batch, channels, height / stride, ...)``."""
        active = F.relu(self.bn1(x))
        y = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(active)))))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(active)
        return shortcut + y  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """A wide residual network of ``depth`` layers, ``width`` times wider than the thin one.

    Args:
        depth: ``6 n + 4`` with ``n >= 1``.
        width: The paper's k, at least 1.
        classes: Outputs.
        dropout: Between the convolutions of a block, from 0 up to but without 1.

    Raises:
        BadArgument: An argument is out of range.

    Example:
        >>> import torch
        >>> net = WideResNet(16, 2)
        >>> net(torch.zeros(2, 3, 32, 32)).shape, net.layer3[0].conv1.out_channels
        (torch.Size([2, 10]), 128)
    """

    input_shape = (3, 32, 32)

    def __init__(self, depth: int, width: int, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise BadArgument("depth", wanted="6 n + 4 with n >= 1, such as 16 or 28", found=f"{depth=}")
        if width < 1:
            raise BadArgument("width", wanted="at least 1", found=f"{width=}")
        if not 0 <= dropout < 1:
            raise BadArgument("dropout", wanted="at least 0, below 1", found=f"{dropout=}")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(16, 16 * width, blocks, 1, dropout)
        self.layer2 = _stage(16 * width, 32 * width, blocks, 2, dropout)
        self.layer3 = _stage(32 * width, 64 * width, blocks, 2, dropout)
        self.bn = nn.BatchNorm2d(64 * width)
        self.linear = nn.Linear(64 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 3, 32, 32)`` to logits ``(batch, classes)``."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(F.relu(self.bn(x)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def wrn16_2(classes: int = 10, dropout: float = 0.0) -> WideResNet:
    """WRN-16-2: 691,674 parameters."""
    return WideResNet(16, 2, classes, dropout)


def wrn28_10(classes: int = 10, dropout: float = 0.0) -> WideResNet:
    """WRN-28-10: 36,479,194 parameters."""
    return WideResNet(28, 10, classes, dropout)


def _stage(channels_in: int, channels: int, blocks: int, stride: int, dropout: float) -> nn.Sequential:
    first = WideBlock(channels_in, channels, stride, dropout)
    return nn.Sequential(first, *(WideBlock(channels, channels, 1, dropout) for _ in range(blocks - 1)))
