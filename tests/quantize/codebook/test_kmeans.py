"""K-means on a line: against scikit-learn and against all partitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from gracile.errors import BadArgument
from gracile.quantize import kmeans
from gracile.quantize.codebook.kmeans import nearest


def cost(values: np.ndarray, centroids: np.ndarray, weights: np.ndarray) -> float:
    """What k-means makes small."""
    return float((weights * (values[:, None] - centroids).__pow__(2).min(1)).sum())


@pytest.mark.parametrize("start", ["linear", "density", "random"])
@pytest.mark.parametrize("count", [2, 8, 16])
def test_the_same_as_scikit_learn_from_the_same_start(start: str, count: int) -> None:
    random = np.random.default_rng(count)
    values, weights = random.normal(size=400), random.random(400) + 0.1
    begin = kmeans(values, count, weights=weights, start=start, iterations=0)
    model = KMeans(len(begin), init=begin[:, None], n_init=1, tol=0, max_iter=500, algorithm="lloyd")
    wanted = np.sort(model.fit(values[:, None], sample_weight=weights).cluster_centers_[:, 0])
    found = kmeans(values, count, weights=weights, start=start, iterations=500)
    assert cost(values, found, weights) <= cost(values, wanted, weights) * 1.1
    if start != "linear":  # there some centroids begin without values, and are moved in two ways
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@settings(max_examples=60)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.integers(1, 4))
def test_never_below_the_best_of_all_partitions_and_nothing_left_to_move(
    numbers: list[float], count: int
) -> None:
    values = np.array(sorted(numbers))
    found = kmeans(values, count)
    assert len(found) <= count
    cuts = itertools.combinations(range(1, len(values)), min(count, len(values)) - 1)
    best = min(sum(((part - part.mean()) ** 2).sum() for part in np.split(values, list(cut))) for cut in cuts)
    ones = np.ones(len(values))
    assert cost(values, found, ones) >= best - 1e-9
    if len(set(numbers)) <= count:
        assert cost(values, found, ones) == 0


def test_heavy_values_pull_and_nearest_is_nearest() -> None:
    values = np.array([0.0, 1.0, 10.0])
    assert kmeans(values, 2, weights=np.array([1.0, 3.0, 1.0])).tolist() == pytest.approx([0.75, 10.0])
    assert nearest(np.array([-5.0, 0.6, 5.6]), np.array([0.0, 1.0, 10.0])).tolist() == [0, 1, 2]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadArgument, match="at least one value"):
        kmeans(np.array([]), 2)
    with pytest.raises(BadArgument, match="linear, density or random"):
        kmeans(np.arange(9.0), 2, start="middle")
