"""The speech networks against the documents: layers, counts of parameters, multiply-adds by hand."""

from __future__ import annotations

import torch

from gracile.graph import cost
from gracile.zoo import LidNet, SadNet, lid, sad


def test_sad_as_documented() -> None:
    by_hand = (13 * 15 * 10 + 15) + (15 * 27 * 15 + 27) + (27 * 164 * 16 + 164) + (492 * 2 + 2)
    assert sum(p.numel() for p in sad().parameters()) == by_hand == 80_065
    assert f"{by_hand:.2e}" == "8.01e+04"  # Hurault 2019, table 2


def test_lid_as_documented() -> None:
    convolutions = (80 * 1024 * 5 + 1024) + (1024 * 1024 * 5 + 1024) + (1024 * 128 * 5 + 128)
    by_hand = convolutions + (128 * 256 + 256) + (256 * 5 + 5)
    assert sum(p.numel() for p in lid().parameters()) == by_hand == 6_344_325
    assert f"{by_hand:.2e}" == "6.34e+06"


def test_macs_by_hand() -> None:
    assert cost(sad(), (torch.zeros(1, 13, 41),)).macs == (
        32 * 15 * 13 * 10 + 18 * 27 * 15 * 15 + 3 * 164 * 27 * 16 + 492 * 2
    )
    assert cost(lid(), (torch.zeros(1, 80, 300),)).macs == (
        296 * 1024 * 80 * 5 + 292 * 1024 * 1024 * 5 + 288 * 128 * 1024 * 5 + 128 * 256 + 256 * 5
    )


def test_lid_averages_over_time() -> None:
    model, x = LidNet(classes=3).eval(), torch.randn(1, 80, 20)
    one = model(x.repeat(1, 1, 1))
    frames = model.conv3(model.conv2(model.conv1(x).relu()).relu()).relu()
    pooled = sum(frames[..., t] for t in range(frames.shape[2])) / frames.shape[2]
    torch.testing.assert_close(one, model.linear2(model.linear1(pooled).relu()))


def test_every_layer_of_sad_answers_to_its_input() -> None:
    model = SadNet()
    model(torch.randn(4, 13, 41)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
