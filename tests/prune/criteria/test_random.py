"""Random scores."""

from __future__ import annotations

import numpy as np

from gracile.graph import capture, trace
from gracile.prune import Random, Scene


def test_one_seed_gives_the_same_scores_and_another_others(residual, inputs) -> None:
    found = trace(capture(residual, inputs))
    one, same, other = (
        Random()(Scene(model=residual, provenance=found, groups=found.groups, seed=s)) for s in (1, 1, 2)
    )
    assert list(one) == [g.name for g in found.groups]
    assert all(np.array_equal(one[k], same[k]) and len(one[k]) == found.group(k).units for k in one)
    assert not all(np.array_equal(one[k], other[k]) for k in one)
