"""The held-out part: each example once, the same for a seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.observe import Batches, DatasetBatches
from gracile.tune import split


def _data(count: int) -> DatasetBatches:
    return DatasetBatches([(torch.tensor([float(i)]), 0) for i in range(count)])


def _numbers(part: Batches) -> list[int]:
    return [int(part[i][0]) for i in range(len(part))]


@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 5))
def test_each_example_lands_on_one_side(count: int, share: float, seed: int) -> None:
    train, held = (_numbers(part) for part in split(_data(count), share, seed=seed))
    assert sorted(train + held) == list(range(count))
    assert len(held) == min(max(round(count * share), 1), count - 1)


def test_the_seed_decides() -> None:
    first, again, other = (_numbers(split(_data(50), 0.3, seed=seed)[1]) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"share=1\.0"):
        split(_data(5), 1.0)
    with pytest.raises(BadArgument, match="at least 2 examples"):
        split(_data(1), 0.5)
