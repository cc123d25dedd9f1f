"""Scales of batch norms."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from gracile.errors import BadArgument
from gracile.prune import L2, BNScale
from tests.prune.scenes import scene_of


def test_scores_are_absolute_scales_relative_to_their_mean(residual, data) -> None:
    residual.norm1.weight.data[2] *= -1
    scale = residual.norm1.weight.detach().abs().double().numpy()
    np.testing.assert_allclose(BNScale()(scene_of(residual, data))["conv1"], scale / scale.mean(), rtol=1e-6)


def test_norms_over_one_group_are_aggregated(residual, data) -> None:
    rows = [n.weight.detach().double().numpy() for n in (residual.norm0, residual.norm2)]
    rows = [r / r.mean() for r in rows]
    for name, combine in (("mean", np.mean), ("product", np.prod)):
        found = BNScale(aggregation=name)(scene_of(residual, data))["stem"]
        np.testing.assert_allclose(found, combine(rows, axis=0), rtol=1e-6)


def test_a_norm_behind_a_depthwise_convolution_counts(depthwise, data) -> None:
    rows = [depthwise.body[i].weight.detach().double().numpy() for i in (3, 6)]
    wanted = np.mean([r / r.mean() for r in rows], axis=0)
    np.testing.assert_allclose(BNScale()(scene_of(depthwise, data))["body.2"], wanted, rtol=1e-6)


def test_groups_without_a_norm_go_by_l2(plain, data) -> None:
    scene = scene_of(plain, data)
    np.testing.assert_allclose(BNScale()(scene)["hidden"], L2()(scene)["hidden"])


def test_a_model_without_any_is_refused(concat, data) -> None:
    with pytest.raises(BadArgument, match="at least one group, for the criterion `bn_scale`, found none in"):
        BNScale()(scene_of(concat, data))
    bare = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 8), nn.Flatten()
    )
    with pytest.raises(BadArgument, match="a batch norm with a scale"):
        BNScale()(scene_of(bare.eval(), data))
