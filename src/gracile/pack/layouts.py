"""Where symbols of a tensor go: one after the other, or only those that are not the background.

Source: Han, Mao and Dally, "Deep compression", ICLR 2016, arXiv 1510.00149, section 2: sparse weights are
stored with the distance to the one before. Ours has no largest distance and no filling zeros, and rows and
columns without any weight are left out first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .entries import Entry, Kept
from .streams import Stream, Symbols, broken, decode, encode, pack_bits, unpack_bits


@dataclass(frozen=True, kw_only=True)
class Read:
    """Values as symbols: ``head`` is stored before them."""

    entry: Entry
    head: bytes
    symbols: Symbols
    alphabet: int


def layouts(read: Read) -> Iterator[tuple[Entry, bytes]]:
    """All ways to lay out symbols, where they can be any better than one after the other."""
    yield _written(read.entry, read.head, read.symbols, read.alphabet)
    counts = np.bincount(read.symbols, minlength=read.alphabet)
    background = int(counts.argmax())
    if read.alphabet < 2 or 2 * counts[background] < len(read.symbols):
        return
    entry = replace(read.entry, background=background)
    yield _gaps(entry, read.head, read.symbols, read.alphabet)
    matrix = _matrix(entry, read.symbols)
    alive = matrix != background
    rows, columns = alive.any(1), alive.any(0)
    if 0 < rows.sum() * columns.sum() < matrix.size:
        masks = pack_bits(np.concatenate([rows, columns]).astype(np.uint8), 1)
        kept = Kept(rows=int(rows.sum()), columns=int(columns.sum()), size=len(masks))
        inner = np.ascontiguousarray(matrix[rows][:, columns]).reshape(-1)
        entry = replace(entry, kept=kept)
        yield _written(entry, read.head + masks, inner, read.alphabet)
        yield _gaps(entry, read.head + masks, inner, read.alphabet)


def _written(entry: Entry, head: bytes, symbols: Symbols, alphabet: int) -> tuple[Entry, bytes]:
    stream, data = encode(symbols, alphabet)
    return replace(entry, streams=(stream,)), head + data


def _gaps(entry: Entry, head: bytes, symbols: Symbols, alphabet: int) -> tuple[Entry, bytes]:
    """Symbols that are not background, and the distances between them."""
    places = np.flatnonzero(symbols != entry.background)
    where, first = distances(places)
    what, second = encode(symbols[places], alphabet)
    return replace(entry, layout="gaps", streams=(where, what)), head + first + second


def distances(places: NDArray[np.int64]) -> tuple[Stream, bytes]:
    """How many places lie between those given: for each 255 of them a symbol 255, then the rest below."""
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(gaps // 255 + 1) - 1
    written = np.full(int(ends[-1]) + 1 if len(ends) else 0, 255, dtype=np.uint8)
    written[ends] = gaps % 255
    return encode(written, int(written.max(initial=0)) + 1)


def places_of(entry: Entry, stream: Stream, data: bytes, count: int) -> NDArray[np.int64]:
    """Undo :func:`distances`: places below ``count``.

    Raises:
        StorageError: Others, or more of them.
    """
    if stream.count > count:
        raise broken(f"places of {entry.name} below {count}", f"{stream.count}")
    written = decode(stream, data)
    ends = np.flatnonzero(written != 255)
    places = np.cumsum(written, dtype=np.int64)[ends] + np.arange(len(ends))
    if (len(written) and written[-1] == 255) or (len(places) and int(places[-1]) >= count):
        raise broken(f"places of {entry.name} below {count}", "others")
    return places


def from_layout(entry: Entry, data: bytes) -> Symbols:
    """The symbols of all elements."""
    if entry.kept is None:
        return _unlaid(entry, entry.numel, data)
    kept, shape = entry.kept, _matrix_shape(entry)
    if min(kept.rows, kept.columns, kept.size) < 0 or kept.size > len(data):
        raise broken("masks of rows and columns", f"{kept}")
    masks = unpack_bits(data[: kept.size], sum(shape), 1).astype(bool)
    rows, columns = masks[: shape[0]], masks[shape[0] :]
    if (int(rows.sum()), int(columns.sum())) != (kept.rows, kept.columns):
        raise broken(f"{kept.rows} rows and {kept.columns} columns", "others")
    inner = _unlaid(entry, kept.rows * kept.columns, data[kept.size :])
    whole = np.full(shape, entry.background, dtype=inner.dtype)
    whole[np.ix_(rows, columns)] = inner.reshape(kept.rows, kept.columns)
    return whole.reshape(-1)


def _unlaid(entry: Entry, count: int, data: bytes) -> Symbols:
    parts = split(entry.streams, data)
    stream = entry.streams[-1]
    if not 0 <= entry.background < stream.alphabet or len(parts) != (2 if entry.layout == "gaps" else 1):
        raise broken(f"symbols of {entry.name}", f"{len(parts)} streams, background {entry.background}")
    places = None if entry.layout == "dense" else places_of(entry, entry.streams[0], parts[0], count)
    wanted = count if places is None else len(places)
    if stream.count != wanted:
        raise broken(f"{wanted} symbols of {entry.name}", f"{stream.count}")
    symbols = decode(stream, parts[-1])
    if places is None:
        return symbols
    whole = np.full(count, entry.background, dtype=symbols.dtype)
    whole[places] = symbols
    return whole


def _matrix_shape(entry: Entry) -> tuple[int, int]:
    rows = entry.shape[0] if entry.shape else 1
    return rows, entry.numel // rows if rows else 0


def _matrix(entry: Entry, symbols: Symbols) -> NDArray[Any]:
    return symbols.reshape(_matrix_shape(entry))


def split(streams: tuple[Stream, ...], data: bytes) -> list[bytes]:
    """The bytes of each stream.

    Raises:
        StorageError: They are not all the bytes.
    """
    if any(s.size < 0 for s in streams) or sum(s.size for s in streams) != len(data):
        raise broken("streams of all bytes", f"{[s.size for s in streams]} of {len(data)}")
    ends = np.cumsum([0, *(s.size for s in streams)]).tolist()
    return [data[start:end] for start, end in itertools.pairwise(ends)]
