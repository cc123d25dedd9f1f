"""Symbols as bytes: nothing is lost, and others can read them from the description alone."""

from __future__ import annotations

import bisect
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.errors import StorageError
from gracile.pack import streams
from gracile.pack.streams import Stream, decode, encode, frequencies, pack_bits, unpack_bits, width


@st.composite
def runs(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Symbols of an alphabet, even or with one that is frequent."""
    alphabet = draw(st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257, 1000, 65536])))
    count = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 63, 300, 2000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    symbols = random.integers(0, alphabet, count)
    symbols[random.random(count) < draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))] = draw(
        st.integers(0, alphabet - 1)
    )
    return symbols.astype(streams.kind_of(alphabet)), alphabet


@settings(max_examples=150)
@given(runs())
def test_what_is_decoded_is_what_was_encoded(run: tuple[np.ndarray, int]) -> None:
    symbols, alphabet = run
    stream, data = encode(symbols, alphabet)
    assert len(data) == stream.size <= -(-len(symbols) * width(alphabet) // 8)
    back = decode(stream, data)
    assert back.dtype == symbols.dtype
    assert np.array_equal(back, symbols)


@pytest.mark.parametrize("bits", range(17))
def test_packed_bits_are_those_of_one_large_number(bits: int) -> None:
    symbols = np.random.default_rng(bits).integers(0, 1 << bits, 21).astype(np.uint16)
    data = pack_bits(symbols, bits)
    number = sum(int(symbol) << (bits * place) for place, symbol in enumerate(symbols))
    assert int.from_bytes(data, "little") == number
    assert len(data) == -(-21 * bits // 8)
    assert np.array_equal(unpack_bits(data, 21, bits), symbols)


def read_as_described(data: bytes, alphabet: int, count: int) -> list[int]:
    """The entropy coder from the description of the format, without the library."""
    at, counts = 0, []

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte, at = data[at], at + 1
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found

    while len(counts) < alphabet:
        counts.append(number())
        if counts[-1] == 0:
            counts += [0] * number()
    total, room = sum(counts), 2**24 - alphabet
    sizes = [1 + c * room // total for c in counts]
    sizes[counts.index(max(counts))] += 2**24 - sum(sizes)
    starts = [sum(sizes[:i]) for i in range(alphabet)]
    words = np.frombuffer(data[at:], dtype="<u4").tolist()
    state = 0
    while words and state < 2**32:
        state = state << 32 | words.pop()
    out = []
    for _ in range(count):
        place = state % 2**24
        symbol = bisect.bisect_right(starts, place) - 1
        out.append(symbol)
        state = (state >> 24) * sizes[symbol] + place - starts[symbol]
        if state < 2**32 and words:
            state = state << 32 | words.pop()
    return out


@settings(max_examples=40)
@given(runs())
def test_the_entropy_coder_is_as_described(run: tuple[np.ndarray, int]) -> None:
    symbols, alphabet = run
    if alphabet < 2 or not len(symbols) or alphabet > 1000:
        return
    counts = np.bincount(symbols, minlength=alphabet)
    data = streams._ans_encode(symbols, counts)
    assert read_as_described(data, alphabet, len(symbols)) == symbols.tolist()


def test_rare_symbols_take_less_than_a_bit_and_what_repeats_even_less() -> None:
    random = np.random.default_rng(0)
    sparse = (random.random(40_000) < 0.02).astype(np.uint8)
    stream, _ = encode(sparse, 2)
    share = sparse.mean()
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert stream.coder == "ans"
    assert stream.size == pytest.approx(40_000 * entropy / 8, rel=0.02)
    repeating = np.tile(random.integers(0, 256, 100), 200).astype(np.uint8)
    stream, _ = encode(repeating, 256)
    assert stream.coder == "zstd"
    assert stream.size < 300


def test_frequencies_fill_the_scale_and_leave_no_symbol_out() -> None:
    for counts in ([5], [1, 0], [0, 10**9, 1], [1] * 65536):
        found = frequencies(np.array(counts))
        assert sum(found) == 2**24
        assert min(found) >= 1


@pytest.mark.parametrize(
    ("change", "data"),
    [
        ({"alphabet": 0}, None),
        ({"alphabet": 70_000}, None),
        ({"count": -1}, None),
        ({"size": 7}, None),
        ({"count": 10**6}, None),
        ({"coder": "zstd"}, None),
        ({"coder": "ans"}, None),
        ({}, b"\xff\xff\xff"),
        ({"coder": "ans", "size": 4}, b"\x80\x80\x80\x80"),
        ({"coder": "ans", "size": 6}, b"\x02\x02\x02\x02\x00\x00"),
        ({"coder": "ans", "size": 7}, b"\x02\x02\x02\x02\x00\x00\x00"),
        ({"coder": "ans", "size": 2}, b"\x00\x09"),
        ({"coder": "zstd", "size": 0}, b""),
    ],
)
def test_what_is_no_stream_is_refused(change: dict[str, object], data: bytes | None) -> None:
    stream, good = encode(np.array([0, 1, 2, 3, 4, 0, 1, 2], dtype=np.uint8), 5)
    assert stream == Stream(coder="bits", count=8, alphabet=5, size=3)
    with pytest.raises(StorageError):
        decode(replace(stream, **change), good if data is None else data)
