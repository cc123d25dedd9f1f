"""LeNet for MNIST, in the form that pruning papers compare on: 20-50-500-10.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998), with the widths of Caffe's MNIST example: max pooling, and one ReLU,
after the first linear layer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Two 5x5 convolutions and two linear layers; 431,080 parameters with ten classes.

    Example:
        >>> import torch
        >>> LeNet()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    input_shape = (1, 28, 28)

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 1, 28, 28)`` to logits ``(batch, classes)``."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


def lenet(classes: int = 10) -> LeNet:
    """LeNet 20-50-500: 431,080 parameters."""
    return LeNet(classes)
