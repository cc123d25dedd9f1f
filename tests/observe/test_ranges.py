"""Histograms that grow: exact extremes, no value lost, the order of batches does not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gracile.errors import NonFiniteError
from gracile.observe import Histogram
from gracile.observe.ranges import binned

batches = st.lists(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=30), min_size=1, max_size=5
)


@settings(max_examples=50)
@given(batches)
@example([[2.0**-131]])  # 1 over its reach is no float32
def test_extremes_and_counts_are_exact(parts: list[list[float]]) -> None:
    seen = Histogram("x")
    for part in parts:
        seen.update(torch.tensor(part))
    everything = [v for part in parts for v in part]
    assert (seen.low, seen.high) == (min(everything), max(everything))
    first = next((i for i, part in enumerate(parts) if any(part)), len(parts))
    assert seen.count == sum(len(part) for part in parts[first:])  # all-zero beginnings need no bins


@settings(max_examples=50)
@given(batches)
def test_every_value_lies_in_its_bin(parts: list[list[float]]) -> None:
    seen = Histogram("x")
    seen.update(torch.tensor([1000.0]))
    for part in parts:
        seen.update(torch.tensor(part))
    width = 2 * seen.reach / len(seen.counts)
    near = seen.centers[seen.counts > 0]
    for value in (v for part in parts for v in part):
        assert float((near - value).abs().min()) <= width / 2 * 1.001


def test_the_order_of_batches_does_not_matter() -> None:
    parts = [torch.randn(500) * scale for scale in (0.01, 1.0, 30.0)]
    one, other = Histogram("x"), Histogram("x")
    for part in parts:
        one.update(part)
    for part in reversed(parts):
        other.update(part)
    assert one.reach == other.reach
    assert float((one.counts - other.counts).abs().sum()) <= 4  # float32 values on the edge of a bin


def test_a_large_batch_is_sampled_but_its_extremes_are_not() -> None:
    seen = Histogram("x")
    values = torch.zeros(3_000_000)
    values[1], values[2] = 7.0, -5.0
    seen.update(values)
    assert (seen.low, seen.high) == (-5.0, 7.0)
    assert abs(seen.count - 3_000_000) < 3  # each value that is counted stands for its neighbours


def test_later_batches_are_sampled_more_but_weigh_as_much() -> None:
    """One value each: what a batch adds does not depend on how much of it was counted."""
    seen = Histogram("x")
    for value in (1.0, 2.0, 3.0):
        seen.update(torch.full((400_000,), value))
    at = {int(i): float(n) for i, n in enumerate(seen.counts) if n}
    assert len(at) == 3
    assert all(abs(n / 400_000 - 1) < 1e-4 for n in at.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_name_their_place(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"layer1\.conv.*1 of 3 values"):
        Histogram("layer1.conv").update(torch.tensor([1.0, bad, 2.0]))


def test_extremes_of_each_batch_are_kept() -> None:
    seen = Histogram("x")
    for part in (torch.tensor([1.0, -2.0]), torch.empty(0), torch.zeros(3)):
        seen.update(part)
    assert (seen.lows, seen.highs) == ([-2.0, 0.0], [1.0, 0.0])


def test_rows_are_drawn_evenly_from_all_batches_and_stay_whole() -> None:
    seen = Histogram("logits", keep_rows=100)
    for start in range(0, 1000, 50):
        number = torch.arange(start, start + 50, dtype=torch.float32)
        seen.update(torch.stack([number, -number], 1))
    assert seen.rows.shape == (100, 2)
    assert torch.equal(seen.rows[:, 0], -seen.rows[:, 1])
    assert len(set(seen.rows[:, 0].tolist())) == 100
    assert 400 < float(seen.rows[:, 0].mean()) < 600


def test_rows_of_maps_are_what_stands_at_one_place() -> None:
    maps = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).reshape(2, 3, 2, 2)
    seen = Histogram("maps", keep_rows=8)
    seen.update(maps)
    wanted = {tuple(maps[n, :, i, j].tolist()) for n in range(2) for i in range(2) for j in range(2)}
    assert {tuple(row) for row in seen.rows.tolist()} == wanted
    plain = Histogram("maps")
    plain.update(maps)
    assert len(plain.rows) == 0


@given(st.integers(-149, 100), st.integers(0, 1000))
@settings(max_examples=40)
def test_counts_are_those_of_histc(exponent: int, seed: int) -> None:
    reach, draw = 2.0**exponent, torch.Generator().manual_seed(seed)
    ends = torch.tensor([-reach, reach, 0.0, reach * (1 - 2**-24)])
    edges = torch.arange(-4096, 4097) * (reach / 4096)
    x = torch.cat([torch.randn(1000, generator=draw) * (reach / 4), ends, edges]).clamp(-reach, reach)
    assert torch.equal(binned(x, reach), torch.histc(x, 8192, -reach, reach).double())
