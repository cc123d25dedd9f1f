"""Maps that differ near borders: stored small, spread to any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from gracile.errors import BadArgument
from gracile.nn import BorderMap


@given(
    kernel=st.integers(1, 5), stride=st.integers(1, 3), padding=st.integers(0, 3), dilation=st.integers(1, 2)
)
def test_maps_of_padded_convolutions_serve_larger_images(kernel, stride, padding, dilation) -> None:
    weight = torch.rand(2, 1, kernel, 2) + 0.1

    def full(size: int) -> torch.Tensor:
        x = torch.ones(1, 1, size, 9)
        return F.conv2d(x, weight, stride=(stride, 1), padding=(padding, 1), dilation=(dilation, 1))[0]

    part = BorderMap.of(full(24), 1e-6)
    assert part.table.shape[1] < full(24).shape[1]
    assert part.table.shape[2] == 3
    for size in (24, 36, 48):  # the same remainder for every stride tried
        torch.testing.assert_close(part.over(full(size).shape[1:]), full(size))


def test_a_map_without_pattern_is_kept_whole() -> None:
    full = torch.randn(3, 6)
    part = BorderMap.of(full, 0.0)
    assert torch.equal(part.over((6,)), full)


def test_maps_add() -> None:
    a = BorderMap.of(torch.tensor([[1.0, 0, 0, 0, 0, 2.0]]), 0.0)
    b = BorderMap.of(torch.tensor([[1.0, 3.0, 0, 0, 0, 0]]), 0.0)
    assert a.plus(b).ends == ((2, 1),)
    assert a.plus(b).over((7,)).tolist() == [[2.0, 3.0, 0, 0, 0, 0, 2.0]]


def test_bad_tables_and_small_images_are_refused() -> None:
    with pytest.raises(BadArgument, match="table: wanted rows"):
        BorderMap(torch.zeros(1, 2), ((1, 1),))
    with pytest.raises(BadArgument, match="at least 3 positions"):
        BorderMap(torch.zeros(1, 3), ((1, 1),))(torch.zeros(1, 1, 2))
