"""Moving average: the recursion of the formula, and min-max where there is one batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.observe import Histogram
from gracile.quantize import MinMax, MovingAverage

parts = st.lists(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=6), min_size=1, max_size=12)


@settings(max_examples=60)
@given(parts, st.floats(0, 0.99), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_it_is_the_weighted_sum_of_the_batches(
    batches: list[list[float]], momentum: float, bits: int, symmetric: bool
) -> None:
    seen = Histogram("x")
    for batch in batches:
        seen.update(torch.tensor(batch))
    n = len(batches)
    shares = [momentum ** (n - 1)] + [(1 - momentum) * momentum ** (n - 1 - i) for i in range(1, n)]
    low, high = (sum(s * end(b) for s, b in zip(shares, batches, strict=True)) for end in (min, max))
    wanted = MinMax()(torch.tensor([low, high]), bits=bits, signed=False, symmetric=symmetric)
    found = MovingAverage(momentum=momentum).of_histogram(seen, bits=bits, signed=False, symmetric=symmetric)
    assert float(found.scale) == pytest.approx(float(wanted.scale), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_one_tensor_is_one_batch(axis: int | None) -> None:
    x = torch.randn(3, 50)
    found = MovingAverage()(x, bits=8, signed=True, symmetric=True, axis=axis)
    assert torch.equal(found.scale, MinMax()(x, bits=8, signed=True, symmetric=True, axis=axis).scale)


def test_one_wild_batch_counts_less_than_in_min_max() -> None:
    seen = Histogram("x")
    for largest in (1.0, 1.0, 100.0, 1.0):
        seen.update(torch.tensor([0.0, largest]))
    found = MovingAverage(momentum=0.9).of_histogram(seen, bits=8, signed=False, symmetric=False)
    assert float(found.scale) * 255 == pytest.approx(1 * 0.9 * 0.9 + 100 * 0.1 * 0.9 + 0.1 * 1, rel=1e-5)


def test_nothing_seen_gives_a_grid_of_zero() -> None:
    found = MovingAverage().of_histogram(Histogram("x"), bits=8, signed=False, symmetric=False)
    assert found.round(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(BadArgument, match="from 0 to below 1"):
        MovingAverage(momentum=momentum)
