"""L1 scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.prune import L1, Scene


def scene(model: nn.Module, inputs) -> Scene:
    found = trace(capture(model, inputs))
    return Scene(model=model, provenance=found, groups=found.groups)


def test_scores_are_filter_norms_relative_to_the_layers_mean(residual, inputs) -> None:
    found = L1()(scene(residual, inputs))
    norms = residual.conv1.weight.detach().abs().sum((1, 2, 3)).double().numpy()
    np.testing.assert_allclose(found["conv1"], norms / norms.mean(), rtol=1e-6)


@pytest.mark.parametrize("aggregation", ["mean", "max", "sum", "prod"])
def test_layers_that_write_one_group_are_aggregated(residual, inputs, aggregation) -> None:
    found = L1(aggregation={"prod": "product"}.get(aggregation, aggregation))(scene(residual, inputs))
    layers = [
        m.weight.detach().abs().sum((1, 2, 3)).double().numpy() for m in (residual.stem, residual.conv2)
    ]
    rows = np.stack([x / x.mean() for x in layers])
    np.testing.assert_allclose(found["stem"], getattr(rows, aggregation)(axis=0), rtol=1e-6)


def test_the_scale_of_a_layer_does_not_matter(residual, inputs) -> None:
    before = L1()(scene(residual, inputs))
    with torch.no_grad():
        residual.stem.weight.mul_(100)
    after = L1()(scene(residual, inputs))
    np.testing.assert_allclose(before["stem"], after["stem"], rtol=1e-5)


def test_a_layer_of_zeros_scores_zero(residual, inputs) -> None:
    nn.init.zeros_(residual.conv1.weight)
    assert not L1()(scene(residual, inputs))["conv1"].any()


def test_unknown_aggregation_is_refused() -> None:
    with pytest.raises(BadArgument, match="one of mean, max, sum, product, norm"):
        L1(aggregation="median")  # type: ignore[arg-type]
