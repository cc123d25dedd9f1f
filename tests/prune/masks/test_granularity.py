"""Entries against their definition, written as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gracile.errors import BadArgument
from gracile.prune import GRANULARITIES, Block, Element, InputChannel, Kernel, NofM, OutputChannel
from gracile.prune.masks.granularity import Granularity


def together(granularity: Granularity, a: tuple[int, ...], b: tuple[int, ...], shape: tuple[int, ...],
             groups: int) -> bool:  # fmt: skip
    """Whether two weights, given by their indices, belong to one entry."""
    per_group = shape[0] // groups

    def column(index: tuple[int, ...]) -> int:
        return int(np.ravel_multi_index(index[1:], shape[1:]))

    if isinstance(granularity, Kernel):
        return a[:2] == b[:2]
    if isinstance(granularity, InputChannel):
        return (a[0] // per_group, a[1]) == (b[0] // per_group, b[1])
    if isinstance(granularity, OutputChannel):
        return a[0] == b[0]
    if isinstance(granularity, Block):
        same_rows = a[0] // granularity.rows == b[0] // granularity.rows
        return same_rows and column(a) // granularity.columns == column(b) // granularity.columns
    return a == b


@pytest.mark.parametrize("name", sorted(GRANULARITIES))
@pytest.mark.parametrize(
    ("shape", "groups"), [((6, 5), 1), ((4, 3, 2), 1), ((4, 2, 2, 2), 2), ((4, 1, 3), 4)]
)
def test_entries_are_what_they_say(name: str, shape: tuple[int, ...], groups: int) -> None:
    granularity = Block(rows=3, columns=2) if name == "block" else GRANULARITIES[name]
    ids = granularity.entries(shape, groups)
    assert ids.shape == shape
    assert set(ids.flatten().tolist()) == set(range(int(ids.max()) + 1))
    places = list(itertools.product(*map(range, shape)))
    for a, b in itertools.combinations(places, 2):
        assert (ids[a] == ids[b]) == together(granularity, a, b, shape, groups), (a, b)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 2)).flatmap(
        lambda shape: arrays(np.float64, shape, elements=st.floats(-5, 5), unique=True)
    ),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_n_of_m_keeps_the_highest_of_every_m(scores: np.ndarray, n: int, m: int) -> None:
    n, m = min(n, m), max(n, m)
    kept = NofM(n=n, m=m).keep(scores, 1 - n / m)
    out, inputs, taps = scores.shape
    for o, t, start in itertools.product(range(out), range(taps), range(0, inputs, m)):
        pool = scores[o, start : start + m, t]
        best = set(np.sort(pool)[::-1][:n].tolist())
        assert set(pool[kept[o, start : start + m, t]].tolist()) == best


def test_n_of_m_on_the_way_keeps_more() -> None:
    scores = np.arange(8.0).reshape(1, 8)
    counts = [int(NofM(n=1, m=4).keep(scores, s).sum()) for s in (0.0, 0.24, 0.25, 0.5, 0.75)]
    assert counts == [8, 8, 6, 4, 2]


def test_equal_scores_still_keep_exactly_n() -> None:
    assert NofM().keep(np.zeros((3, 8)), 0.5).sum() == 3 * 4


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Block(rows=0), "rows"),
        (lambda: Block(columns=-1), "columns"),
        (lambda: NofM(n=5, m=4), "n"),
        (lambda: NofM(n=0, m=4), "n"),
    ],
)
def test_bad_sizes(make, where: str) -> None:
    with pytest.raises(BadArgument) as caught:
        make()
    assert caught.value.where == where


def test_texts_tell_them_apart() -> None:
    assert len({g.text for g in GRANULARITIES.values()}) == len(GRANULARITIES)
    assert Block(rows=2, columns=8).text == "block 2x8"
    assert NofM(n=1, m=8).text == "1:8"
    assert Element().text == "element"
