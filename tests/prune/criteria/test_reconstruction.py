"""The least-squares cost of channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gracile import prune
from gracile.errors import BadArgument, NonFiniteError
from gracile.graph import capture, trace
from gracile.prune import Reconstruction, Scene


def scene(model: nn.Module, inputs, data) -> Scene:
    found = trace(capture(model, inputs))
    batches = tuple((b,) for b in data.split(32))
    return Scene(model=model, provenance=found, groups=found.groups, calibration=batches)


def test_a_channel_that_others_express_costs_nothing(net, inputs, data, monkeypatch) -> None:
    monkeypatch.setattr("gracile.prune.criteria.reconstruction.ridge_of", lambda xx, rows: 1e-9)
    found = trace(capture(net, inputs))
    state = dict(net.named_parameters()) | dict(net.named_buffers())
    with torch.no_grad():
        for group in found.groups:
            for slot in group.slots:  # unit 1 becomes a copy of unit 0
                if slot.role != "read":
                    rows = state[slot.param].movedim(slot.axis, 0)
                    rows[torch.from_numpy(slot.index[1])] = rows[torch.from_numpy(slot.index[0])].clone()
    scores = Reconstruction()(scene(net, inputs, data))
    for group in found.groups:
        values = scores[group.name]
        assert values[:2].min() < 1e-3 * values[np.isfinite(values)].max()


def test_one_unit_stays_whatever_it_costs(residual, inputs, data) -> None:
    scores = Reconstruction()(scene(residual, inputs, data))
    assert all(np.isinf(s).sum() == 1 and (s[np.isfinite(s)] >= 0).all() for s in scores.values())


def test_the_cheapest_unit_is_the_one_whose_removal_hurts_least(inputs, monkeypatch) -> None:
    monkeypatch.setattr("gracile.prune.layers.ROWS_PER_COLUMN", 10**9)
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1)).eval()
    data = torch.randn(128, 2, 8, 8)
    scores = Reconstruction()(scene(net, inputs, data))["0"]
    with torch.no_grad():
        hidden = net[:2](data).movedim(1, -1).reshape(-1, 5).double().numpy()
        target = net(data).movedim(1, -1).reshape(-1, 3).double().numpy()
    errors = []
    for unit in range(5):
        x = np.c_[np.delete(hidden, unit, 1), np.ones(len(hidden))]
        errors.append(((target - x @ np.linalg.lstsq(x, target, rcond=None)[0]) ** 2).sum())
    assert scores.argmin() == int(np.argmin(errors))
    relative = min(errors) / (len(target) * target.var(0).sum())
    assert scores.min() == pytest.approx(relative, rel=0.02)


def test_groups_that_no_fit_reaches_get_their_share_of_the_weights(inputs, data) -> None:
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3)).eval()
    scores = Reconstruction()(scene(net, inputs, data))["0"]
    energy = net[0].weight.detach().double().square().sum((1, 2, 3)).numpy()
    np.testing.assert_allclose(scores, energy / energy.sum(), rtol=1e-6)


def test_it_needs_data(residual, inputs) -> None:
    with pytest.raises(BadArgument, match="unlabelled inputs for the criterion"):
        prune.plan(residual, inputs, criterion=Reconstruction())


def test_activations_that_are_no_numbers_are_refused(residual, inputs) -> None:
    with pytest.raises(NonFiniteError, match="finite activations"):
        prune.plan(
            residual, inputs, criterion=Reconstruction(), calibration=torch.full((8, 2, 8, 8), float("inf"))
        )
