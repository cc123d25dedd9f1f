"""VGG-19 for CIFAR: sixteen 3x3 convolutions with batch normalisation, then one linear layer.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, arXiv:1409.1556, table 1, configuration E; batch normalisation (Ioffe and Szegedy 2015) behind every
convolution. Differs from the paper: on 32x32 images five poolings leave one pixel, so the three linear layers
of 4096, 4096 and 1000 become one of 512 inputs, as is usual on CIFAR. The convolutions keep their biases,
which batch normalisation makes idle; with them and the statistics the count is the published 2.01e7.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class CifarVgg(nn.Module):
    """Five stages of convolutions with batch normalisation and ReLU, each ended by max pooling.

    ``features`` holds convolution, batch norm, ReLU and pooling in order, as torchvision's VGG does.

    Args:
        classes: Outputs.

    Example:
        >>> import torch
        >>> CifarVgg()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    input_shape = (3, 32, 32)

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = 3
        for stage in STAGES:
            for channels in stage:
                layers += [
                    nn.Conv2d(channels_in, channels, 3, padding=1),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
                channels_in = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 3, 32, 32)`` to logits ``(batch, classes)``."""
        x = self.features(x)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def vgg19(classes: int = 10) -> CifarVgg:
    """VGG-19 for CIFAR: 20,040,522 parameters."""
    return CifarVgg(classes)
