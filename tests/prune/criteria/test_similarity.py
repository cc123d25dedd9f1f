"""Pairwise distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gracile.errors import BadArgument
from gracile.prune import Similarity
from tests.prune.scenes import scene_of


def test_of_two_equal_channels_one_goes_first(net, data) -> None:
    scene = scene_of(net, data)
    state = dict(net.named_parameters()) | dict(net.named_buffers())
    with torch.no_grad():
        for group in scene.groups:
            for slot in group.slots:
                if slot.role != "read":
                    rows = state[slot.param].movedim(slot.axis, 0)
                    rows[torch.from_numpy(slot.index[1])] = rows[torch.from_numpy(slot.index[0])].clone()
    for scores in Similarity()(scene).values():
        order = scores.argsort()
        assert order[0] in (0, 1)
        assert scores[order[0]] < 1e-12 < scores[order[1]]


def test_a_batch_norm_tells_channels_apart(residual, data) -> None:
    with torch.no_grad():
        residual.conv1.weight[1] = residual.conv1.weight[0]
    assert Similarity()(scene_of(residual, data))["conv1"].min() > 1e-3


@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
def test_one_channel_stays_whatever_the_order(residual, data, p) -> None:
    for scores in Similarity(p=p)(scene_of(residual, data)).values():
        assert np.isinf(scores).sum() == 1
        assert len(set(scores)) == len(scores)


def test_an_order_that_is_no_distance_is_refused() -> None:
    with pytest.raises(BadArgument, match="p: wanted an order of at least 1"):
        Similarity(p=0.5)
