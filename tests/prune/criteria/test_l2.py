"""L2 scores."""

from __future__ import annotations

import numpy as np
import pytest

from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.prune import L2, Scene


def test_scores_are_filter_norms_relative_to_the_layers_mean(depthwise, inputs) -> None:
    found = trace(capture(depthwise, inputs))
    scores = L2()(Scene(model=depthwise, provenance=found, groups=found.groups))
    norms = depthwise.body[2].weight.detach().double().square().sum((1, 2, 3)).sqrt().numpy()
    np.testing.assert_allclose(scores["body.2"], norms / norms.mean(), rtol=1e-6)


def test_unknown_aggregation_is_refused() -> None:
    with pytest.raises(BadArgument, match="one of mean, max, sum"):
        L2(aggregation="")  # type: ignore[arg-type]
