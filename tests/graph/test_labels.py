"""Label tensors: laziness, ties and freezes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracile.graph.labels import Labels, core, shrink, spread, varying


def test_shrink_finds_constant_axes() -> None:
    full = torch.arange(1, 5).view(1, 4, 1, 1).expand(2, 4, 3, 3).contiguous()
    lazy = shrink(full)
    assert varying(full) == [0, 1, 2, 3]
    assert varying(lazy) == [1]
    assert torch.equal(lazy, full)
    assert core(lazy).numel() == 4


def test_spread_costs_one_entry_per_label() -> None:
    plane = spread(torch.arange(1, 9), (1, 8, 1000, 1000), 1)
    assert plane.untyped_storage().nbytes() == 8 * 8
    assert varying(plane) == [1]


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=20), st.sets(st.integers(1, 12)))
def test_components_equal_a_slow_union(pairs: list[tuple[int, int]], fixed: set[int]) -> None:
    labels = Labels()
    labels.block("p", 0, 12)
    for a, b in pairs:
        labels.tie(torch.tensor([a]), torch.tensor([b]), "n")
    for f in sorted(fixed):
        labels.freeze(torch.tensor([f]), "why", "n")
    component, why = labels.components()
    slow = {i: {i} for i in range(1, 13)}
    for a, b in pairs:
        joined = slow[a] | slow[b]
        for i in joined:
            slow[i] = joined
    for a in range(1, 13):
        for b in range(1, 13):
            together = b in slow[a]
            frozen = bool(slow[a] & fixed) and bool(slow[b] & fixed)  # one reason ties what it freezes
            assert (component[a] == component[b]) == (together or frozen)
        assert (int(component[a]) in why) == bool(slow[a] & fixed)


def test_meeting_label_zero_freezes_and_says_where() -> None:
    labels = Labels()
    block = labels.block("p", 0, 3)
    labels.tie(block, torch.tensor([0, 2, 0]), "add_1")
    component, why = labels.components()
    frozen = [int(component[i]) in why for i in (1, 2, 3)]
    assert frozen == [True, False, True]
    assert {f.node for found in why.values() for f in found} == {"add_1"}


def test_ties_broadcast_without_growing() -> None:
    labels = Labels()
    a, b = labels.block("a", 0, 5), labels.block("b", 0, 5)
    labels.tie(spread(a, (1, 5, 512, 512), 1), spread(b, (1, 5, 512, 512), 1), "n")
    assert sum(e[0].size for e in labels._edges) == 5
    component, _ = labels.components()
    assert np.array_equal(component[1:6], component[6:11])
