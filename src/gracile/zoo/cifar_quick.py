"""Cifar-quick, Caffe's small network for CIFAR-10: 32-32-64-64-10.

Source: Jia et al., "Caffe: Convolutional Architecture for Fast Feature Embedding", ACM Multimedia 2014, its
example ``cifar10_quick``: 5x5 convolutions, 3x3 pools with stride 2 that round up, maximum first and averages
behind, and no activation between the two linear layers.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CifarQuick(nn.Module):
    """Three 5x5 convolutions and two linear layers; 145,578 parameters with ten classes.

    Example:
        >>> import torch
        >>> CifarQuick()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    input_shape = (3, 32, 32)

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 3, 32, 32)`` to logits ``(batch, classes)``."""
        x = F.relu(F.max_pool2d(self.conv1(x), 3, stride=2, ceil_mode=True))
        x = F.avg_pool2d(F.relu(self.conv2(x)), 3, stride=2, ceil_mode=True)
        x = F.avg_pool2d(F.relu(self.conv3(x)), 3, stride=2, ceil_mode=True)
        return self.fc2(self.fc1(x.flatten(1)))  # type: ignore[no-any-return]


def cifar_quick(classes: int = 10) -> CifarQuick:
    """Cifar-quick 32-32-64-64: 145,578 parameters."""
    return CifarQuick(classes)
