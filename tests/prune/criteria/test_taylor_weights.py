"""Weights, first order, and why batch norms in training mode make it blind."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from gracile.prune import TaylorWeights
from tests.prune.scenes import scene_of


def products(net: nn.Module, x, y) -> np.ndarray:
    """``w dL/dw`` of the filters of conv1 ``(filters, weights)``, by backward, in the net's mode."""
    net = copy.deepcopy(net)
    nn.functional.cross_entropy(net(x), y).backward()
    weight = net.conv1.weight
    return (weight.detach() * weight.grad).double().flatten(1).numpy()


def test_scores_are_mean_absolute_sums_over_batches(residual, data, labels) -> None:
    batches = list(zip(data.split(32), labels.split(32), strict=True))
    wanted = np.mean([np.abs(products(residual.eval(), x, y).sum(1)) for x, y in batches], axis=0)
    found = TaylorWeights()(scene_of(residual, data, labels, size=32))["conv1"]
    np.testing.assert_allclose(found, wanted / wanted.mean(), rtol=1e-3)


def test_layers_around_a_sum_are_aggregated(residual, data, labels) -> None:
    scene = scene_of(residual, data, labels)
    mean, largest = TaylorWeights()(scene)["stem"], TaylorWeights(aggregation="max")(scene)["stem"]
    assert (largest >= mean).all()
    assert (largest > mean).any()


def test_behind_a_batch_norm_in_training_mode_the_sum_is_zero(residual, data, labels) -> None:
    trained = products(residual.double().train(), data.double(), labels)
    fixed = products(residual.eval(), data.double(), labels)
    shares = [np.abs(p.sum(1)).sum() / np.abs(p).sum() for p in (trained, fixed)]
    assert shares[0] < 2e-3  # what is left comes from the norm's eps
    assert shares[1] > 20 * shares[0]


def test_scores_are_the_same_in_either_mode(residual, data, labels) -> None:
    a = TaylorWeights()(scene_of(residual.train(), data, labels))
    b = TaylorWeights()(scene_of(residual.eval(), data, labels))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert torch.is_grad_enabled()
