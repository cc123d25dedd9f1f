"""A tensor as the fewest bytes that give back each of its bits.

All that its values can be read as (bytes, a few distinct ones, whole numbers, a grid) and all layouts are
tried, and the smallest is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .entries import DTYPES, Entry
from .grids import find_grid
from .layouts import Read, distances, from_layout, layouts, places_of, split
from .streams import (
    LARGEST_ALPHABET,
    Stream,
    Symbols,
    broken,
    decode,
    encode,
    kind_of,
)

_LARGEST_TABLE = 4096
_SAMPLE = 1 << 14
_SMALL = 1 << 12  # below, bytes are worth a look even where values are few
_CHUNK = 1 << 16
_EXACT = 1 << 24  # above, float32 has no room for all whole numbers


def encode_tensor(name: str, tensor: Tensor) -> tuple[Entry, bytes]:
    """The entry and the bytes of a tensor.

    Args:
        name: Its name in the archive.
        tensor: Of a type in :data:`DTYPES`, on any device.

    Raises:
        StorageError: The type is another.

    Example:
        >>> ternary = torch.tensor([0.25, 0.0, -0.25, 0.0]).repeat(1000)
        >>> entry, data = encode_tensor("w", ternary)
        >>> entry.values, len(data) < 60, torch.equal(decode_tensor(entry, data), ternary)
        ('grid', True, True)
    """
    raw, dtype = bit_patterns(tensor)
    base = Entry(name=name, dtype=dtype, shape=tuple(tensor.shape))
    found = [pair for read in _readings(base, raw) for pair in layouts(read)]
    if not found or raw.size < _SMALL:
        found.append(_as_bytes(base, raw))
        if raw.size and tensor.is_floating_point() and 2 * np.count_nonzero(raw) < raw.size:
            found.append(_sparse_bytes(base, raw))
    best = min(found, key=lambda pair: len(pair[1]) + _header_bytes(pair[0]))
    return replace(best[0], size=len(best[1])), best[1]


def decode_tensor(entry: Entry, data: bytes) -> Tensor:
    """Undo :func:`encode_tensor`.

    Raises:
        StorageError: The bytes are not such a tensor.
    """
    if entry.dtype not in DTYPES or len(data) != entry.size or min(entry.shape, default=0) < 0:
        raise broken(f"a tensor {entry.name} of {entry.size} bytes", f"{len(data)} bytes, {entry.dtype}")
    kind = np.dtype("<" + DTYPES[entry.dtype][1])
    if entry.values == "bytes":
        return tensor_of(_from_bytes(entry, data, kind), entry)
    head, data = _head(entry, data, kind)
    symbols = from_layout(entry, data)
    return tensor_of(_values(entry, head, symbols, kind), entry)


def bit_patterns(tensor: Tensor) -> tuple[NDArray[Any], str]:
    """The tensor as a flat array of whole numbers (floats as bit patterns), and the name of its type."""
    names = {torch_type: name for name, (torch_type, _) in DTYPES.items()}
    if tensor.dtype not in names or tensor.layout != torch.strided:
        raise broken(f"tensors of type {', '.join(DTYPES)}", f"{tensor.dtype}, {tensor.layout}")
    name = names[tensor.dtype]
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    if tensor.dtype == torch.bool:
        plain = plain.to(torch.uint8)
    elif tensor.is_floating_point():
        plain = plain.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
    return plain.numpy().view("<" + DTYPES[name][1]), name


def tensor_of(raw: NDArray[Any], entry: Entry) -> Tensor:
    """Undo :func:`bit_patterns`."""
    torch_type, kind = DTYPES[entry.dtype]
    signed = np.ascontiguousarray(raw).view(kind if torch_type == torch.uint8 else kind.replace("u", "i"))
    tensor = torch.from_numpy(signed if signed.flags.writeable else signed.copy())
    if torch_type == torch.bool:
        if raw.size and int(raw.max()) > 1:
            raise broken("truth values", f"{int(raw.max())}")
        tensor = tensor.to(torch.bool)
    elif torch_type.is_floating_point:
        tensor = tensor.view(torch_type)
    return tensor.reshape(entry.shape)


def _header_bytes(entry: Entry) -> int:
    """About what an entry costs in the header, so that five bytes are not saved by twenty."""
    return 6 * len(entry.streams) + 8 * (entry.kept is not None) + 4 * (entry.layout == "gaps")


def _as_bytes(base: Entry, raw: NDArray[Any]) -> tuple[Entry, bytes]:
    """Each byte a symbol: all in one stream, or, for many, one stream for each byte of an element."""
    pairs = _planes(raw)
    return replace(base, streams=tuple(s for s, _ in pairs)), b"".join(d for _, d in pairs)


def _planes(raw: NDArray[Any]) -> list[tuple[Stream, bytes]]:
    octets = np.ascontiguousarray(raw).view(np.uint8).reshape(-1, raw.itemsize)
    planes = [octets.reshape(-1)] if raw.size < 64 else [octets[:, i] for i in range(raw.itemsize)]
    return [encode(np.ascontiguousarray(plane), 256) for plane in planes]


def _sparse_bytes(base: Entry, raw: NDArray[Any]) -> tuple[Entry, bytes]:
    """The bytes of elements that are not zero, and the distances between them."""
    places = np.flatnonzero(raw)
    pairs = [distances(places), *_planes(raw[places])]
    entry = replace(base, layout="gaps", streams=tuple(s for s, _ in pairs))
    return entry, b"".join(d for _, d in pairs)


def _from_bytes(entry: Entry, data: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    parts = list(zip(entry.streams, split(entry.streams, data), strict=True))
    if entry.layout == "dense":
        return _from_planes(entry, parts, entry.numel, kind)
    if not parts:
        raise broken(f"streams of {entry.name}", "none")
    places = places_of(entry, *parts[0], entry.numel)
    whole = np.zeros(entry.numel, dtype=kind)
    whole[places] = _from_planes(entry, parts[1:], len(places), kind)
    return whole


def _from_planes(
    entry: Entry, parts: list[tuple[Stream, bytes]], count: int, kind: np.dtype[Any]
) -> NDArray[Any]:
    counts = [stream.count for stream, _ in parts]
    if len(parts) not in (1, kind.itemsize) or {c * len(parts) for c in counts} != {count * kind.itemsize}:
        raise broken(f"the bytes of {count} elements of {entry.name}", f"{counts}")
    octets = np.empty((count, kind.itemsize), dtype=np.uint8)
    if len(parts) == 1:
        octets.reshape(-1)[:] = decode(*parts[0])
    else:
        for index, part in enumerate(parts):
            octets[:, index] = decode(*part)
    return octets.view(kind).reshape(-1)


def _readings(base: Entry, raw: NDArray[Any]) -> Iterator[Read]:
    """All that symbols may stand for."""
    if raw.size == 0:
        return
    if raw.dtype.kind == "i" or base.dtype in ("uint8", "bool"):
        low, high = int(raw.min()), int(raw.max())
        if high - low < LARGEST_ALPHABET:
            alphabet = high - low + 1
            symbols = (raw.astype(np.int64) - low).astype(kind_of(alphabet))
            entry = replace(base, values="range", low=low)
            yield Read(entry=entry, head=b"", symbols=symbols, alphabet=alphabet)
    grids = list(_grid(base, raw)) if base.dtype == "float32" else []
    yield from grids
    sample = raw[:: max(raw.size // _SAMPLE, 1)]
    few = len(np.unique(sample)) <= min(_LARGEST_TABLE, len(sample) // 2 + 2)
    if few and (not grids or raw.size < _SMALL):
        yield from _table(base, raw)


def _table(base: Entry, raw: NDArray[Any]) -> Iterator[Read]:
    distinct = np.unique(raw)
    if len(distinct) <= _LARGEST_TABLE:
        symbols = np.searchsorted(distinct, raw).astype(kind_of(len(distinct)))
        entry = replace(base, values="table")
        yield Read(entry=entry, head=distinct.tobytes(), symbols=symbols, alphabet=len(distinct))


def _grid(base: Entry, raw: NDArray[Any]) -> Iterator[Read]:
    floats = raw.view(np.float32)
    for rows in {1, base.shape[0] if len(base.shape) > 1 else 1}:
        matrix = floats.reshape(rows, -1)
        if find_grid(matrix[:, :: max(matrix.shape[1] // 64, 1)]) is None:  # a few first: most have none
            continue
        found = find_grid(matrix)
        if found is None:
            continue
        scales, integers = found
        low, high = int(integers.min()), int(integers.max())
        entry = replace(base, values="grid", low=low, scales=rows)
        symbols = (integers.reshape(-1) - low).astype(kind_of(high - low + 1))
        head = scales.astype("<f4").tobytes()
        yield Read(entry=entry, head=head, symbols=symbols, alphabet=high - low + 1)


def _head(entry: Entry, data: bytes, kind: np.dtype[Any]) -> tuple[NDArray[Any], bytes]:
    """The table or the scales that stand before the symbols."""
    if not entry.streams:
        raise broken(f"streams of {entry.name}", "none")
    alphabet = entry.streams[-1].alphabet
    size = {"table": alphabet * kind.itemsize, "grid": entry.scales * 4}.get(entry.values, 0)
    if size > len(data) or entry.scales < 0:
        raise broken(f"{size} bytes before the symbols of {entry.name}", f"{len(data)}")
    return np.frombuffer(data[:size], dtype=kind), data[size:]


def _values(entry: Entry, head: NDArray[Any], symbols: Symbols, kind: np.dtype[Any]) -> NDArray[Any]:
    if entry.values == "table":
        whole = np.empty(len(symbols), dtype=kind)
        for start in range(0, len(symbols), _CHUNK):  # numpy makes 8-byte numbers of what it looks up by
            whole[start : start + _CHUNK] = head[symbols[start : start + _CHUNK]]
        return whole
    if entry.values == "range":
        return _whole_numbers(entry, symbols, kind)
    rows = entry.shape[0] if len(entry.shape) > 1 else 1
    if entry.values != "grid" or entry.dtype != "float32" or entry.scales not in (1, rows):
        raise broken(f"values of {entry.name}", f"{entry.values} of {entry.dtype}")
    if abs(entry.low) > _EXACT - LARGEST_ALPHABET:
        raise broken(f"whole numbers of {entry.name} that float32 holds", f"from {entry.low} on")
    numbers = symbols.astype("<f4").reshape(entry.scales, -1)
    numbers += np.float32(entry.low)
    numbers *= head.view("<f4").reshape(-1, 1)
    return numbers.reshape(-1).view(kind)


def _whole_numbers(entry: Entry, symbols: Symbols, kind: np.dtype[Any]) -> NDArray[Any]:
    """``low`` on top of the symbols, in their own width: sums that wrap around come out right."""
    limits = np.iinfo(kind)
    if kind.kind != "i" and entry.dtype not in ("uint8", "bool"):
        raise broken("whole numbers", entry.dtype)
    if symbols.size:
        least, most = entry.low + int(symbols.min()), entry.low + int(symbols.max())
        if not limits.min <= least <= most <= limits.max:
            raise broken(f"numbers of type {entry.dtype}", f"{least} to {most}")
    numbers: NDArray[Any] = symbols.astype(f"<u{kind.itemsize}")
    numbers += numbers.dtype.type(entry.low % (1 << 8 * kind.itemsize))
    return numbers.view(kind)
