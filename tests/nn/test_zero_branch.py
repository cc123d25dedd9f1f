"""Zeros that take whatever comes in."""

from __future__ import annotations

import torch

from gracile.nn import ZeroBranch


def test_type_device_and_rank_are_those_of_what_comes_in() -> None:
    x = torch.ones(2, 3, 5, dtype=torch.float64)
    found = ZeroBranch(rank=4)(x, x, attn_mask=None)
    assert found.shape == (1, 1, 1, 1)
    assert found.dtype == torch.float64
    assert not found.any()
    assert ZeroBranch(rank=3, whole=True)(x).shape == x.shape
