"""Gates, second order from first derivatives."""

from __future__ import annotations

import numpy as np

from gracile.prune import Fisher, Taylor
from tests.prune.scenes import gate_differences, scene_of


def test_scores_are_half_the_mean_square_of_each_image_s_derivative(concat, data, labels) -> None:
    net, x, y = concat.double(), data[:16].double(), labels[:16]
    scene = scene_of(net, x, y)
    found = Fisher()(scene)
    for group in scene.groups:
        wanted = 0.5 * np.square(gate_differences(net, group, x, y)).mean(0)
        np.testing.assert_allclose(found[group.name], wanted / wanted.mean(), rtol=1e-3)


def test_relative_scores_are_those_of_the_squared_expansion(residual, data, labels) -> None:
    scene = scene_of(residual, data, labels)
    a, b = Fisher()(scene), Taylor(power=2)(scene)
    assert all(np.allclose(a[n], b[n]) for n in a)
