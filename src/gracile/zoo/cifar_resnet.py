"""Residual networks for CIFAR with parameter-free shortcuts (option A) or projections (option B).

Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
arXiv:1512.03385, section 4.2: three stages of 16, 32 and 64 channels, ``depth = 6 n + 2`` layers for ``n``
blocks a stage; where channels double, the shortcut takes every second pixel and pads the missing channels
with zeros. As in widely used weights, half of the zeros go before the channels and half after. Section 3.3
names the other choice, option B: a 1x1 convolution, here with batch normalisation, where the shape changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument


class PadShortcut(nn.Module):
    """Option A: every ``stride``-th pixel, with ``before`` and ``after`` zero channels added."""

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, before + channels + after, ...)``."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut: option B's where ``project`` says so."""

    def __init__(self, channels_in: int, channels: int, stride: int, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        missing = channels - channels_in
        self.shortcut: nn.Module = nn.Identity()
        if (missing or stride != 1) and project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
        elif missing or stride != 1:
            self.shortcut = PadShortcut(stride, missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels_in, height, width)`` to ``(batch, channels, height / stride, ...)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A CIFAR residual network of ``depth`` layers with weights.

    Args:
        depth: ``6 n + 2`` with ``n >= 1``.
        classes: Outputs.
        widths: Channels of the three stages, not decreasing.
        option: ``A`` for shortcuts without parameters, ``B`` for projections.

    Raises:
        BadArgument: The depth, the widths or the option have another form.

    Example:
        >>> import torch
        >>> net = CifarResNet(20)
        >>> sum(p.numel() for p in net.parameters())
        269722
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    input_shape = (3, 32, 32)

    def __init__(
        self, depth: int, classes: int = 10, widths: Sequence[int] = (16, 32, 64), option: str = "A"
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise BadArgument("depth", wanted="6 n + 2 with n >= 1, such as 20 or 56", found=f"{depth=}")
        if len(widths) != 3 or list(widths) != sorted(widths) or widths[0] < 1:
            raise BadArgument("widths", wanted="three widths, not decreasing", found=f"{widths=}")
        if option not in ("A", "B"):
            raise BadArgument("option", wanted="A or B", found=f"{option=}")
        blocks, project = (depth - 2) // 6, option == "B"
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks, 1, project)
        self.layer2 = _stage(widths[0], widths[1], blocks, 2, project)
        self.layer3 = _stage(widths[1], widths[2], blocks, 2, project)
        self.linear = nn.Linear(widths[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 3, 32, 32)`` to logits ``(batch, classes)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def resnet20(classes: int = 10) -> CifarResNet:
    """ResNet-20: 269,722 parameters."""
    return CifarResNet(20, classes)


def resnet32(classes: int = 10) -> CifarResNet:
    """ResNet-32: 464,154 parameters."""
    return CifarResNet(32, classes)


def resnet44(classes: int = 10) -> CifarResNet:
    """ResNet-44: 658,586 parameters."""
    return CifarResNet(44, classes)


def resnet56(classes: int = 10) -> CifarResNet:
    """ResNet-56: 853,018 parameters."""
    return CifarResNet(56, classes)


def resnet110(classes: int = 10) -> CifarResNet:
    """ResNet-110: 1,727,962 parameters."""
    return CifarResNet(110, classes)


def resnet20b(classes: int = 10) -> CifarResNet:
    """ResNet-20 with projections: 272,474 parameters."""
    return CifarResNet(20, classes, option="B")


def resnet56b(classes: int = 10) -> CifarResNet:
    """ResNet-56 with projections: 855,770 parameters."""
    return CifarResNet(56, classes, option="B")


def _stage(channels_in: int, channels: int, blocks: int, stride: int, project: bool) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride, project)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))
