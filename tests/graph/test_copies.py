"""Axes that grow by copies: order must be kept by whatever moves channels about."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.graph import capture, trace
from gracile.graph.copies import repeat_runs
from gracile.testing.nets import NETS, net

times_of = st.lists(st.integers(1, 3), min_size=2, max_size=5)


@given(times_of, st.integers(1, 4))
@settings(deadline=None)
def test_channels_flattened_with_their_pixels_are_repeated_with_them(times: list[int], pixels: int) -> None:
    channels = np.arange(len(times))
    image = np.arange(len(times) * pixels).reshape(len(times), pixels)  # (channels, pixels)
    component = np.repeat(channels, pixels)
    found = repeat_runs([component], np.array(times))
    assert found.index.tolist() == np.repeat(image, times, axis=0).reshape(-1).tolist()


@given(times_of, st.integers(1, 4))
@settings(deadline=None)
def test_channels_behind_their_pixels_are_repeated_in_each(times: list[int], pixels: int) -> None:
    channels = np.arange(len(times))
    image = np.arange(len(times) * pixels).reshape(pixels, len(times))  # (pixels, channels)
    component = np.tile(channels, pixels)
    found = repeat_runs([component], np.array(times))
    assert found.index.tolist() == np.repeat(image, times, axis=1).reshape(-1).tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 99))
@settings(max_examples=50)
def test_a_slow_loop_gives_the_same(component: list[int], seed: int) -> None:
    times = np.random.default_rng(seed).integers(1, 4, 5)
    index: list[int] = []
    number: list[int] = []
    at = 0
    while at < len(component):
        end = at
        while end < len(component) and component[end] == component[at]:
            end += 1
        for copy in range(times[component[at]]):
            index += range(at, end)
            number += [copy] * (end - at)
        at = end
    found = repeat_runs([np.array(component)], times)
    assert (found.index.tolist(), found.number.tolist()) == (index, number)


def test_planes_of_a_tensor_are_looked_at_together() -> None:
    found = repeat_runs([np.array([1, 1, 0, 0]), np.array([0, 0, 2, 3])], np.array([1, 2, 1, 2]))
    assert found.index.tolist() == [0, 1, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("name", NETS)
def test_nothing_repeated_nothing_grows(name: str) -> None:
    found = trace(capture(*net(name)))
    times = found.times({})
    assert found.repeated_parameters(times) == {}
    assert all(found.repeated(node.name, times) == {} for node in found.captured.graph.nodes)


def test_a_group_grows_in_every_slot() -> None:
    found = trace(capture(*net("concat")))
    group = found.group("a")
    grown = found.repeated_parameters(found.times({"a": [2] * group.units}))
    assert set(grown) == {(slot.param, slot.axis) for slot in group.slots}
    for slot in group.slots:
        copies = grown[slot.param, slot.axis]
        again = np.isin(copies.index, slot.index)
        assert again.sum() == 2 * slot.index.size
        assert set(copies.number[~again]) <= {0}
