"""Two networks for speech: is somebody talking (SAD), and in which language (LID).

Source: Hurault, "Compression et accélération de l'inférence sur GPU des réseaux de neurones", report, 2019,
section 2.3 and tables 1 and 2. SAD reads 41 frames of 13 MFCC through convolutions over time of 15, 27 and
164 channels with kernels of 10, 15 and 16 frames, and has one linear layer; LID reads 300 frames of 80
features through 1024, 1024 and 128 channels with kernels of 5 frames, and has two.

The report leaves open, and we chose so that its counts of parameters come out (8.01e4 and 6.34e6): no
padding, no batch normalisation, biases everywhere; SAD flattens the three frames that are left; LID takes the
mean over time and has 256 hidden units. ReLU after every layer but the last.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SadNet(nn.Module):
    """Speech activity detection on 41 frames of 13 MFCC; 80,065 parameters with two classes.

    Example:
        >>> import torch
        >>> SadNet()(torch.zeros(4, 13, 41)).shape
        torch.Size([4, 2])
    """

    input_shape = (13, 41)

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(13, 15, 10)
        self.conv2 = nn.Conv1d(15, 27, 15)
        self.conv3 = nn.Conv1d(27, 164, 16)
        self.linear = nn.Linear(164 * 3, classes)
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(batch, 13, 41)`` to logits ``(batch, classes)``."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return self.linear(x.flatten(1))  # type: ignore[no-any-return]


class LidNet(nn.Module):
    """Language identification on 300 frames of 80 features; 6,344,325 parameters with five languages.

    Example:
        >>> import torch
        >>> LidNet()(torch.zeros(1, 80, 300)).shape
        torch.Size([1, 5])
    """

    input_shape = (80, 300)

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, 1024, 5)
        self.conv2 = nn.Conv1d(1024, 1024, 5)
        self.conv3 = nn.Conv1d(1024, 128, 5)
        self.linear1 = nn.Linear(128, 256)
        self.linear2 = nn.Linear(256, classes)
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(batch, 80, frames)`` to logits ``(batch, classes)``."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x)).mean(dim=2)
        return self.linear2(F.relu(self.linear1(x)))  # type: ignore[no-any-return]


def sad(classes: int = 2) -> SadNet:
    """Speech activity detection: 80,065 parameters."""
    return SadNet(classes)


def lid(classes: int = 5) -> LidNet:
    """Language identification: 6,344,325 parameters."""
    return LidNet(classes)


def _start(model: nn.Module) -> None:
    """He's normal weights and zero biases: no normalisation would repair a worse start."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
