"""Integrated gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gracile.errors import BadArgument
from gracile.prune import SInGE
from gracile.prune.criteria.examples import cross_entropy
from tests.prune.scenes import scene_of


def test_alone_on_its_way_a_unit_scores_what_the_loss_changes(residual, data, labels) -> None:
    net, x, y = residual.double(), data[:32].double(), labels[:32]
    scene = scene_of(net, x, y, size=32)
    group = scene.provenance.group("conv3")
    scene = type(scene)(model=net, provenance=scene.provenance, groups=(group,), labelled=scene.labelled)
    found = SInGE(steps=50, parts=group.units)(scene)["conv3"]
    changes = []
    with torch.no_grad():
        whole = cross_entropy(net(x), y).mean()
        for unit in range(group.units):
            without = copy.deepcopy(net)
            without.conv3.weight[unit] = 0
            changes.append(abs(float(cross_entropy(without(x), y).mean() - whole)))
    wanted = np.array(changes) / np.mean(changes)
    np.testing.assert_allclose(found, wanted, atol=0.05)


def test_weights_of_zero_score_zero(residual, data, labels) -> None:
    residual.conv1.weight.data[2] = 0
    residual.norm1.bias.data.fill_(1.0)  # so that no channel is silent
    scores = SInGE(steps=2, parts=2)(scene_of(residual, data[:32], labels[:32]))["conv1"]
    assert scores[2] == 0
    assert (np.delete(scores, 2) > 0).all()


def test_the_seed_deals_the_parts(residual, data, labels) -> None:
    a, b, c = (
        SInGE(steps=1, parts=3)(scene_of(residual, data[:32], labels[:32], seed=s))["conv1"]
        for s in (0, 0, 1)
    )
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("field", ["steps", "parts"])
def test_none_is_refused(field) -> None:
    with pytest.raises(BadArgument, match=f"{field}: wanted at least 1"):
        SInGE(**{field: 0})
