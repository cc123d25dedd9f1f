"""Mean activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gracile.errors import BadArgument
from gracile.prune import Activation
from tests.prune.scenes import scene_of


def test_scores_are_mean_activations_where_the_channels_are_read(residual, data) -> None:
    with torch.no_grad():
        x = residual.norm0(residual.stem(data)).relu()
        z = residual.norm1(residual.conv1(x)).relu().double()
    wanted = z.mean((0, 2, 3)).numpy()
    found = Activation()(scene_of(residual, data))["conv1"]
    np.testing.assert_allclose(found, wanted / wanted.mean(), rtol=1e-5)


def test_labelled_examples_do_as_well(residual, data, labels) -> None:
    labelled = scene_of(residual, data, labels)
    unlabelled = scene_of(residual, data)
    only = type(labelled)(model=residual, provenance=labelled.provenance, groups=labelled.groups,
                          labelled=labelled.labelled)  # fmt: skip
    a, b = Activation()(only), Activation()(unlabelled)
    assert all(np.array_equal(a[n], b[n]) for n in a)


def test_it_needs_data_and_a_known_aggregation(residual, data) -> None:
    scene = scene_of(residual, data)
    with pytest.raises(BadArgument, match="inputs for a criterion that looks at data"):
        Activation()(type(scene)(model=residual, provenance=scene.provenance, groups=scene.groups))
    with pytest.raises(BadArgument, match="aggregation"):
        Activation(aggregation="median")  # type: ignore[arg-type]
