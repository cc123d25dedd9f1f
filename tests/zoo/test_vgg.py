"""VGG-19 against its layers written out and the documents' count."""

from __future__ import annotations

import torch
from torch import nn

from gracile.graph import cost
from gracile.zoo import CifarVgg, vgg19

WIDTHS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
SIDES = [32] * 2 + [16] * 2 + [8] * 4 + [4] * 4 + [2] * 4


def test_parameters_by_hand_and_with_statistics_as_the_report_counts() -> None:
    model = vgg19()
    pairs = list(zip([3, *WIDTHS], WIDTHS, strict=False))
    by_hand = sum(9 * a * b + b + 2 * b for a, b in pairs) + 512 * 10 + 10
    assert sum(p.numel() for p in model.parameters()) == by_hand == 20_040_522
    stored = sum(t.numel() for t in model.state_dict().values())
    assert f"{stored:.2e}" == "2.01e+07"  # Hurault 2019, table 2


def test_macs_by_hand() -> None:
    pairs = zip([3, *WIDTHS], WIDTHS, SIDES, strict=False)
    by_hand = sum(9 * a * b * side * side for a, b, side in pairs) + 512 * 10
    assert cost(vgg19(), (torch.zeros(1, 3, 32, 32),)).macs == by_hand


def test_sixteen_convolutions_each_normalised() -> None:
    kinds = [type(m) for m in CifarVgg(classes=7).features]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.BatchNorm2d) == kinds.count(nn.ReLU) == 16
    assert kinds.count(nn.MaxPool2d) == 5


def test_a_fresh_network_keeps_the_scale_of_its_input() -> None:
    out = CifarVgg(classes=7)(torch.randn(8, 3, 32, 32))
    assert out.shape == (8, 7)
    assert 0.05 < out.std() < 5
