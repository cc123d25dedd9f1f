"""LeNet for CIFAR-10: two convolutions and three linear layers, 6-16-120-84-10.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998), the widths of LeNet-5 with three input channels, max pooling and ReLU, as
in PyTorch's CIFAR-10 tutorial. Marelli, Idiap-RR-03-2018, section 4.4, names the five layers and not their
widths; its error before reduction (44.7 %) is about that of the tutorial (45 %).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LeNetCifar(nn.Module):
    """Two 5x5 convolutions and three linear layers; 62,006 parameters with ten classes.

    Example:
        >>> import torch
        >>> LeNetCifar()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    input_shape = (3, 32, 32)

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 3, 32, 32)`` to logits ``(batch, classes)``."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return self.fc3(x)  # type: ignore[no-any-return]


def lenet_cifar(classes: int = 10) -> LeNetCifar:
    """LeNet 6-16-120-84 for CIFAR-10: 62,006 parameters."""
    return LeNetCifar(classes)
