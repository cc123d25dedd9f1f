"""Distances to all other filters."""

from __future__ import annotations

import numpy as np

from gracile.prune import GeometricMedian
from tests.prune.scenes import scene_of


def test_scores_are_sums_of_distances_within_the_layer(residual, data) -> None:
    rows = [m.weight.detach().double().flatten(1).numpy() for m in (residual.stem, residual.conv2)]
    sums = [np.array([sum(np.linalg.norm(a - b) for b in x) for a in x]) for x in rows]
    wanted = np.mean([s / s.mean() for s in sums], axis=0)
    np.testing.assert_allclose(GeometricMedian()(scene_of(residual, data))["stem"], wanted, rtol=1e-6)


def test_the_filter_in_the_middle_goes_however_large_it_is(residual, data) -> None:
    weight = residual.conv1.weight.data
    weight += 5  # far from zero
    weight[4] = weight.mean(0)
    assert GeometricMedian()(scene_of(residual, data))["conv1"].argmin() == 4
