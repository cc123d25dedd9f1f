"""Masks by chance: as many as asked for, at every place alike, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.rounding.learned import by_chance


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.73, 0.99])
def test_the_share_is_met_at_every_place_of_a_word(share: float) -> None:
    mask = by_chance(torch.zeros(50_000, 4), share, torch.Generator().manual_seed(0))
    error = 4 * (share * (1 - share) / 50_000) ** 0.5 + 2**-16  # four standard deviations, and the grid
    assert mask.dtype == torch.bool
    assert all(abs(float(column.float().mean()) - share) <= error for column in mask.T)


def test_neighbours_are_independent() -> None:
    mask = by_chance(torch.zeros(50_000, 4), 0.5, torch.Generator().manual_seed(0)).double()
    assert float((torch.corrcoef(mask.T) - torch.eye(4)).abs().max()) < 0.02


@given(shape=st.lists(st.integers(0, 5), max_size=4), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_shapes_and_seeds(shape: list[int], seed: int) -> None:
    x = torch.zeros(shape)
    first, second = (by_chance(x, 0.5, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert first.shape == x.shape
    assert torch.equal(first, second)
