"""Lp scores."""

from __future__ import annotations

import numpy as np
import pytest

from gracile.errors import BadArgument
from gracile.prune import L1, L2, Lp
from tests.prune.scenes import scene_of


@pytest.mark.parametrize("p", [0.5, 1, 3, float("inf")])
def test_scores_are_lp_norms_relative_to_the_layers_mean(residual, data, p) -> None:
    weight = residual.conv1.weight.detach().double().abs().flatten(1).numpy()
    norm = weight.max(1) if p == float("inf") else (weight**p).sum(1) ** (1 / p)
    found = Lp(p=p)(scene_of(residual, data))["conv1"]
    np.testing.assert_allclose(found, norm / norm.mean(), rtol=1e-6)


def test_it_continues_l1_and_l2(residual, data) -> None:
    scene = scene_of(residual, data)
    for p, named in ((1, L1()), (2, L2())):
        theirs = named(scene)
        for name, scores in Lp(p=p)(scene).items():
            np.testing.assert_allclose(scores, theirs[name], rtol=1e-12)


@pytest.mark.parametrize("p", [0, -1, float("nan")])
def test_an_order_that_is_none_is_refused(p) -> None:
    with pytest.raises(BadArgument, match="p: wanted an order above 0"):
        Lp(p=p)
