"""Shares of zeros."""

from __future__ import annotations

import numpy as np
import torch

from gracile.prune import APoZ
from tests.prune.scenes import scene_of


def test_scores_are_shares_that_are_not_zero(residual, data) -> None:
    with torch.no_grad():
        x = residual.norm0(residual.stem(data)).relu()
        z = residual.norm1(residual.conv1(x)).relu()
    wanted = z.gt(0).double().mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(APoZ()(scene_of(residual, data))["conv1"], wanted, atol=2e-6)


def test_where_nothing_is_zero_the_level_decides(concat, data) -> None:
    scores = APoZ()(scene_of(concat, data))["right"]  # behind a tanh
    np.testing.assert_allclose(scores, 1, atol=2e-6)
    with torch.no_grad():
        level = concat.right(concat.stem(data).relu()).tanh().abs().mean((0, 2, 3))
    assert scores.argsort().tolist() == level.argsort().tolist()
