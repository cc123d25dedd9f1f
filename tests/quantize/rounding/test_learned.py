"""Masks by chance: as many as asked for, at every place alike, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.rounding.learned import by_chance, mixed


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
@settings(max_examples=30)
def test_shapes_and_seeds(shape: list[int], seed: int) -> None:
    x = torch.zeros(shape)
    first, second = (by_chance(x, 0.5, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert first.shape == x.shape
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_values_and_gradients_are_those_of_a_choice(dtype: torch.dtype) -> None:
    first, second = (torch.randn(7, 9).to(dtype).requires_grad_() for _ in range(2))
    mask = by_chance(first, 0.4, torch.Generator().manual_seed(3))
    found = mixed(first, second, 0.4, torch.Generator().manual_seed(3))
    assert torch.equal(found, torch.where(mask, first, second))
    found.sum().backward()
    assert first.grad is not None
    assert second.grad is not None
    assert torch.equal(first.grad, mask.to(dtype))
    assert torch.equal(second.grad, (~mask).to(dtype))
