"""Gates, first order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gracile.errors import BadArgument
from gracile.prune import Taylor
from tests.prune.scenes import gate_differences, scene_of


@pytest.mark.parametrize("power", [1, 2])
def test_scores_are_mean_powers_of_each_image_s_derivative(residual, data, labels, power) -> None:
    net, x, y = residual.double(), data[:16].double(), labels[:16]
    scene = scene_of(net, x, y)
    found = Taylor(power=power)(scene)
    for group in scene.groups:
        wanted = (np.abs(gate_differences(net, group, x, y)) ** power).mean(0)
        np.testing.assert_allclose(found[group.name], wanted / wanted.mean(), rtol=1e-3)


def test_images_that_pull_apart_do_not_cancel() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(1.0)
        net[2].weight.copy_(torch.tensor([[3.0, 0.1], [-3.0, -0.1]]))
        net[2].bias.copy_(-net[2].weight.sum(1))  # both classes get one half
    data, labels = torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])
    scores = Taylor()(scene_of(net, data, labels))["0"]
    assert scores[0] == pytest.approx(30 * scores[1], rel=1e-4)


def test_a_channel_that_nobody_hears_scores_nothing(residual, data, labels) -> None:
    residual.conv2.weight.data[:, 3] = 0
    scores = Taylor()(scene_of(residual, data, labels))["conv1"]
    assert scores[3] == 0
    assert scores.max() > 1


def test_without_labels_the_model_s_own_classes_are_the_targets(residual, data) -> None:
    with torch.no_grad():
        own = residual(data).argmax(1)
    a, b = Taylor()(scene_of(residual, data)), Taylor()(scene_of(residual, data, own))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_other_powers_are_refused() -> None:
    with pytest.raises(BadArgument, match="power: wanted 1 or 2"):
        Taylor(power=3)
