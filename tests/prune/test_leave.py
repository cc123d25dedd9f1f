"""Layers left alone."""

from __future__ import annotations

import pytest

from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.prune.leave import split_left, weighted_layers


@pytest.fixture
def found(residual, inputs):
    captured = capture(residual, inputs)
    return captured, trace(captured).groups


def free(found, *leave: str) -> set[str]:
    return {g.name for g in split_left(*found, leave)[0]}


def test_layers_come_in_the_order_in_which_they_run(found) -> None:
    assert weighted_layers(found[0]) == ("stem", "conv1", "conv2", "conv3", "conv4", "down", "head")


def test_nothing_left_means_all_free(found) -> None:
    assert free(found) == {"stem", "conv1", "conv3", "conv4"}


def test_first_leaves_the_whole_trunk_that_the_first_layer_writes(found) -> None:
    groups, left = split_left(*found, ("first", "last"))
    assert {g.name for g in groups} == {"conv1", "conv3", "conv4"}
    assert [(s.where, s.why) for s in left] == [("stem", "left alone: first (stem)")]


def test_a_group_is_left_for_any_layer_that_writes_it(found) -> None:
    assert free(found, "down") == {"stem", "conv1", "conv3"}


def test_patterns(found) -> None:
    assert free(found, "conv*") == set()
    assert free(found, "conv[13]") == {"stem", "conv4"}


def test_a_name_that_fits_nothing_is_refused(found) -> None:
    with pytest.raises(BadArgument, match="'conv9', which fits none of 7 layers"):
        free(found, "conv9")
