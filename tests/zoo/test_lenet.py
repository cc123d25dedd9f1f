"""LeNet against its layer sizes written out."""

from __future__ import annotations

import torch

from gracile.zoo import LeNet, lenet


def test_parameter_count_by_hand() -> None:
    by_hand = (20 * 25 + 20) + (50 * 20 * 25 + 50) + (50 * 16 * 500 + 500) + (500 * 10 + 10)
    assert sum(p.numel() for p in lenet().parameters()) == by_hand == 431_080


def test_other_numbers_of_classes() -> None:
    assert LeNet(classes=3)(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
