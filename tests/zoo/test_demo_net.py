"""The demo network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gracile.errors import BadArgument
from gracile.zoo import DemoNet, demo_net


def test_parameter_count_by_hand() -> None:
    stem = 32 * 9 + 2 * 32
    block1 = 2 * 32 * 32 * 9 + 2 * 2 * 32
    block2 = 32 * 64 * 9 + 64 * 64 * 9 + 32 * 64 + 3 * 2 * 64
    assert sum(p.numel() for p in demo_net().parameters()) == stem + block1 + block2 + 64 * 10 + 10 == 77_290


def test_it_learns() -> None:
    model = DemoNet(width=4, classes=2)
    images = torch.randn(32, 1, 8, 8)
    labels = (images.mean(dim=(1, 2, 3)) > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_bad_width() -> None:
    with pytest.raises(BadArgument, match="width: wanted at least 1, found width=0"):
        DemoNet(width=0)
