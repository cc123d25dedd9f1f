"""Curvature at the gates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.prune import OBD
from gracile.prune.criteria.examples import cross_entropy
from gracile.prune.criteria.obd import projection
from tests.prune.scenes import gated, scene_of


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs * torch.tensor([1.0, 2.0, 3.0]).to(outputs)).square().sum(1)


@pytest.mark.parametrize("loss", [cross_entropy, lambda o, t: cross_entropy(o, t), squares])
def test_projections_have_the_hessian_as_their_second_moment(loss, monkeypatch) -> None:
    outputs, targets = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 2])
    moment = torch.zeros(2, 3, 3, dtype=torch.float64)
    for signs in itertools.product((0, 1), repeat=3):
        every = torch.tensor(signs).expand(2, 3)
        monkeypatch.setattr(torch, "randint", lambda *a, every=every, **k: every)
        found = projection(loss, outputs, targets, torch.Generator())
        moment += found[:, :, None] * found[:, None, :] / 8
    for i in range(2):
        wanted = torch.autograd.functional.hessian(
            lambda o, i=i: loss(o[None], targets[i : i + 1])[0], outputs[i]
        )
        torch.testing.assert_close(moment[i], wanted, rtol=1e-6, atol=1e-9)


def test_scores_are_half_the_second_derivative_in_a_gate(residual, data, labels) -> None:
    net, x, y = residual.double(), data.double(), labels
    scene = scene_of(net, x, y, size=96)
    found = OBD(probes=48)(scene)["conv3"]
    group, step = scene.provenance.group("conv3"), 1e-4

    def loss() -> Tensor:
        return cross_entropy(net(x), y).mean()

    middle = loss().item()
    wanted = np.array(
        [
            sum(gated(net, group, u, 1 + s * step, loss).item() for s in (1, -1)) - 2 * middle
            for u in range(group.units)
        ]
    )
    np.testing.assert_allclose(found, wanted / wanted.mean(), rtol=0.25, atol=0.01)
    assert np.corrcoef(found, wanted)[0, 1] > 0.98


def test_labels_do_not_matter_and_the_seed_does(residual, data, labels) -> None:
    def scores(y, seed):
        return OBD()(scene_of(residual, data, y, seed=seed))["conv1"]

    assert np.array_equal(scores(labels, 0), scores(None, 0))
    assert not np.array_equal(scores(labels, 0), scores(labels, 1))


def test_no_probe_is_refused() -> None:
    with pytest.raises(BadArgument, match="probes: wanted at least 1"):
        OBD(probes=0)
