"""LeNet for CIFAR-10 against its layer sizes written out."""

from __future__ import annotations

import torch

from gracile.zoo import LeNetCifar, lenet_cifar


def test_parameter_count_by_hand() -> None:
    convolutions = (6 * 3 * 25 + 6) + (16 * 6 * 25 + 16)
    linears = (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert sum(p.numel() for p in lenet_cifar().parameters()) == convolutions + linears == 62_006


def test_other_numbers_of_classes() -> None:
    assert LeNetCifar(classes=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
