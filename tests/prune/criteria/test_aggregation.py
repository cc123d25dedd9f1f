"""How the scores of several layers become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gracile.errors import BadArgument
from gracile.prune.criteria.aggregation import AGGREGATIONS, aggregate, check_aggregation, relative

ROWS = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(0, 10))
ORACLES = {"mean": np.mean, "max": np.max, "sum": np.sum, "product": np.prod, "norm": np.linalg.norm}


@given(rows=ROWS)
def test_every_aggregation_is_what_its_name_says(rows: np.ndarray) -> None:
    assert set(ORACLES) == set(AGGREGATIONS)
    for name in AGGREGATIONS:
        wanted = [float(ORACLES[name](rows[:, unit])) for unit in range(rows.shape[1])]
        np.testing.assert_allclose(aggregate(rows, name), wanted, rtol=1e-12, atol=1e-12)


@given(rows=ROWS)
def test_one_layer_is_left_as_it_is(rows: np.ndarray) -> None:
    for name in AGGREGATIONS:
        np.testing.assert_allclose(aggregate(rows[:1], name), rows[0], rtol=1e-12, atol=1e-12)


def test_relative_scores_have_mean_one_and_zeros_stay() -> None:
    assert relative(np.array([1.0, 2.0, 6.0])).mean() == pytest.approx(1)
    assert not relative(np.zeros(3)).any()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadArgument, match="one of mean, max, sum, product, norm, found 'median'"):
        check_aggregation("median")
