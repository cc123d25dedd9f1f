"""Tensors as bytes: every bit comes back, and what is simple is small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gracile.errors import StorageError
from gracile.pack import decode_tensor, encode_tensor, layouts
from gracile.pack import tensors as tensors_module
from gracile.pack.entries import DTYPES, Entry, Kept
from gracile.pack.grids import find_grid
from gracile.pack.layouts import distances, places_of

SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (5, 4), (6, 5, 3, 3), (1, 100), (2, 70, 2)]


def same(a: Tensor, b: Tensor) -> bool:
    """Same type, shape and bits; NaN and negative zero count as what they are."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return (
        a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()
        if a.dtype not in (torch.bfloat16,)
        else bool(torch.equal(a.view(torch.int16), b.view(torch.int16)))
    )


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of all types and shapes: dense, sparse, with few values, on a grid, with rows of zeros."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))][0]
    shape = draw(st.sampled_from(SHAPES))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**40)))
    values = torch.randn(shape, generator=random) * draw(st.sampled_from([0.01, 1.0, 50.0, 1e4]))
    kind = draw(st.sampled_from(["dense", "few", "grid", "special"]))
    if kind == "few":
        values = torch.round(values * draw(st.sampled_from([0.1, 2.0])))
    if kind == "grid":
        bits = draw(st.integers(1, 8))
        integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, generator=random)
        rows = [shape[0], *[1] * (len(shape) - 1)] if shape else []
        values = integers * (torch.rand(rows, generator=random) + 0.01)
    if kind == "special" and dtype.is_floating_point:
        chosen = torch.randint(0, 4, shape, generator=random)
        values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-40])[chosen]
    kept = torch.rand(shape, generator=random) >= draw(st.sampled_from([0.0, 0.6, 0.97, 1.0]))
    values = values * kept if kind != "special" else values
    if draw(st.booleans()) and values.dim() > 1:
        values[::2] = 0
        values[:, 1::2] = 0
    info = None if dtype.is_floating_point or dtype == torch.bool else torch.iinfo(dtype)
    return values.clamp(info.min / 2, info.max / 2).to(dtype) if info else values.to(dtype)


@settings(max_examples=250)
@given(tensors())
def test_every_bit_comes_back(tensor: Tensor) -> None:
    entry, data = encode_tensor("x", tensor)
    assert entry.size == len(data)
    assert same(decode_tensor(entry, data), tensor)


@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_take_their_bits(bits: int) -> None:
    random = torch.Generator().manual_seed(bits)
    integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (16, 8, 3, 3), generator=random).to(
        torch.int8
    )
    entry, data = encode_tensor("x", integers)
    assert len(data) <= 16 * 8 * 9 * bits / 8
    assert len(data) > 0.97 * 16 * 8 * 9 * bits / 8  # drawn evenly: there is nothing to gain
    assert same(decode_tensor(entry, data), integers)


@pytest.mark.parametrize("bits", range(1, 7))
def test_floats_on_a_grid_of_each_channel_take_their_bits_and_scales(bits: int) -> None:
    random = torch.Generator().manual_seed(bits)
    integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (16, 64), generator=random).float()
    scale = torch.rand(16, 1, generator=random) + 0.01
    entry, data = encode_tensor("x", integers * scale)
    assert (entry.values, entry.scales) == ("grid", 16)
    assert len(data) <= 16 * 64 * bits / 8 + 16 * 4
    assert same(decode_tensor(entry, data), integers * scale)


@pytest.mark.parametrize(
    ("values", "bits"), [([0.3, -0.3], 1), ([0.3, 0.0, -0.7], 1.6), ([0.1, 0.25, -0.7, 1.9], 2)]
)
def test_binary_ternary_and_codebook_weights_take_their_entropy(values: list[float], bits: float) -> None:
    random = torch.Generator().manual_seed(0)
    weights = torch.tensor(values)[torch.randint(0, len(values), (64, 64), generator=random)]
    _, data = encode_tensor("x", weights)
    assert len(data) <= 64 * 64 * bits / 8 + 40


def test_sparse_floats_take_their_values_and_where_they_are() -> None:
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(400, 400, generator=random)
    weights.masked_fill_(torch.rand(400, 400, generator=random) > 0.05, 0.0)
    entry, data = encode_tensor("x", weights)
    kept = int(weights.count_nonzero())
    assert entry.layout == "gaps"
    assert len(data) < kept * 4 + kept + 64


def test_rows_and_columns_without_weights_cost_a_bit() -> None:
    random = torch.Generator().manual_seed(0)
    weights = torch.randint(0, 4, (80, 80), generator=random).to(torch.int8)
    weights[1::2], weights[:, 1::2] = 0, 0
    entry, data = encode_tensor("x", weights)
    assert entry.kept == Kept(rows=40, columns=40, size=20)
    assert len(data) == 20 + 40 * 40 * 2 / 8
    assert same(decode_tensor(entry, data), weights)


def test_a_grid_is_found_where_no_value_is_one_step() -> None:
    scale = np.float32(0.0137)
    rows = np.float32([[2, -4, 6, 7]]) * scale
    found = find_grid(rows)
    assert found is not None
    assert found[1].tolist() == [[2, -4, 6, 7]]
    assert found[0].tolist() == [scale]


@settings(max_examples=50)
@given(st.sets(st.integers(0, 3000), max_size=20))
def test_distances_give_the_places_again(chosen: set[int]) -> None:
    wanted = np.array(sorted(chosen), dtype=np.int64)
    stream, data = distances(wanted)
    assert np.array_equal(places_of(Entry(name="x"), stream, data, 3001), wanted)
    if chosen:
        with pytest.raises(StorageError):
            places_of(Entry(name="x"), stream, data, max(chosen))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_of_any_width_start_anywhere(kind: torch.dtype) -> None:
    limits = torch.iinfo(kind)
    for low in (limits.min, limits.max - 200):
        wanted = torch.arange(200).repeat(30).to(kind) + low
        entry, data = encode_tensor("x", wanted)
        assert (entry.values, entry.low) == ("range", low)
        assert torch.equal(decode_tensor(entry, data), wanted)
        with pytest.raises(StorageError, match="numbers of type"):
            decode_tensor(replace(entry, low=limits.max - 198), data)


def test_a_grid_whose_numbers_float32_has_not_is_refused() -> None:
    entry, data = encode_tensor("x", torch.tensor([0.3, -0.6, 0.0]).repeat(3000))
    assert entry.values == "grid"
    with pytest.raises(StorageError, match="float32 holds"):
        decode_tensor(replace(entry, low=1 << 24), data)


@pytest.mark.parametrize("count", [2999, 3001])
@pytest.mark.parametrize("values", ["bytes", "grid"])
def test_streams_of_another_length_are_refused_before_they_are_read(
    values: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = torch.tensor([0.3, -0.6, 0.0]).repeat(1000) if values == "grid" else torch.randn(3000)
    entry, data = encode_tensor("x", numbers)
    assert entry.values == values
    streams = tuple(replace(stream, count=count) for stream in entry.streams)
    for module in (layouts, tensors_module):
        monkeypatch.setattr(module, "decode", lambda *_: pytest.fail("was read"))
    with pytest.raises(StorageError):
        decode_tensor(replace(entry, streams=streams), data)


def test_types_that_archives_do_not_know_are_refused() -> None:
    with pytest.raises(StorageError, match="complex64"):
        encode_tensor("x", torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (4, 4)},
        {"shape": (-2, -8)},
        {"dtype": "float99"},
        {"dtype": "int8"},
        {"values": "bytes"},
        {"values": "grid", "scales": 8},
        {"values": "range"},
        {"layout": "gaps"},
        {"background": 99},
        {"scales": -1, "values": "grid"},
        {"streams": ()},
        {"size": 3},
        {"kept": Kept(rows=1, columns=1, size=1)},
        {"kept": Kept(rows=-1, columns=-1, size=-1)},
    ],
)
def test_an_entry_that_does_not_fit_its_bytes_is_refused(change: dict[str, object]) -> None:
    entry, data = encode_tensor("x", torch.tensor([0.1, 0.2573, -0.7019, 0.0]).repeat(8, 2))
    assert entry.values == "table"
    with pytest.raises(StorageError):
        decode_tensor(replace(entry, **change), data)
