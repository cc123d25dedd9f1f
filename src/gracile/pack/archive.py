"""The file: a few fixed bytes, a header in JSON, and the bytes of the tensors, each with a checksum.

The format is described byte by byte in ``docs/reference/archive-format.md``.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zstandard
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from gracile.errors import StorageError
from gracile.records import atomic_write

from .entries import DTYPES, Entry
from .graphs import Node
from .modules import Part
from .tensors import bit_patterns, decode_tensor, encode_tensor

MAGIC = b"\x89GRACILE"
VERSION = 1
LARGEST_HEADER = 1 << 26
MAX_BYTES = 1 << 33
"""Most bytes that tensors of a file may have in memory, unless the caller allows more."""
_FIXED = struct.Struct("<8sHHII")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an archive says about itself.

    ``model`` is the name of the packed class. ``graph`` and ``parts`` run it; they are empty where only
    weights were packed. ``quantized`` is a plan without the numbers that tensors hold; ``plans`` is whatever
    else was stored, as JSON data.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    producer: str = ""
    model: str = ""
    graph: tuple[Node, ...] = ()
    parts: tuple[Part, ...] = ()
    quantized: dict[str, Any] | None = None
    plans: dict[str, Any] = field(default_factory=dict)
    tensors: tuple[Entry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file that was read: its header and its tensors by name."""

    header: Header
    tensors: dict[str, Tensor]


@cache
def _adapter() -> TypeAdapter[Header]:
    return TypeAdapter(Header)


def write_archive(
    path: Path, header: Header, tensors: Mapping[str, Tensor], parameters: frozenset[str] = frozenset()
) -> Header:
    """Write an archive, wholly or not at all; every tensor is decoded again and compared before.

    Args:
        path: File to write.
        header: Everything but the tensors.
        tensors: By name; those that share their memory are stored once.
        parameters: Names of those that are parameters.

    Returns:
        The header with all tensors, as it was written.

    Raises:
        StorageError: A tensor has a type that archives do not know, or the file cannot be written.
    """
    entries, bodies = [], []
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in first:
            entry, body = Entry(name=name, dtype=_name(tensor), shape=tuple(tensor.shape), values="same"), b""
            entry = replace(entry, of=first[key])
        else:
            first[key] = name
            entry, body = encode_tensor(name, tensor)
            _check(entry, body, tensor)
        entries.append(replace(entry, parameter=name in parameters))
        bodies.append(body)
    header = replace(header, tensors=tuple(entries))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_head(header))
        for entry, body in zip(entries, bodies, strict=True):
            if entry.values != "same":
                file.write(body)
                file.write(_CHECKSUM.pack(zlib.crc32(body)))
    return header


def read_archive(path: Path, *, max_bytes: int = MAX_BYTES) -> Archive:
    """Read an archive; nothing of it is run.

    Args:
        path: File to read.
        max_bytes: Most bytes that its tensors may have in memory.

    Raises:
        StorageError: It is not an archive, damaged, cut off, of a newer version, or too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            str(path), wanted="to read this file", found=error.strerror or str(error)
        ) from error
    try:
        header, at = _read_head(data)
        return Archive(header=header, tensors=_read_tensors(header, data, at, max_bytes))
    except StorageError as error:
        raise StorageError(str(path), wanted=error.wanted, found=error.found, do=error.do) from error


def read_header(path: Path) -> Header:
    """Read what an archive says about itself, without its tensors.

    Raises:
        StorageError: It is not an archive, or its header is damaged.
    """
    try:
        return _read_head(path.read_bytes())[0]
    except OSError as error:
        raise StorageError(
            str(path), wanted="to read this file", found=error.strerror or str(error)
        ) from error
    except StorageError as error:
        raise StorageError(str(path), wanted=error.wanted, found=error.found, do=error.do) from error


def header_json(header: Header) -> bytes:
    """The header as JSON, what equals its default left out."""
    return _adapter().dump_json(header, exclude_defaults=True)


def _name(tensor: Tensor) -> str:
    return next(name for name, (kind, _) in DTYPES.items() if kind == tensor.dtype)


def _check(entry: Entry, body: bytes, tensor: Tensor) -> None:
    again, wanted = bit_patterns(decode_tensor(entry, body))[0], bit_patterns(tensor)[0]
    assert np.array_equal(again, wanted), f"{entry.name} does not come back as it was"


def _head(header: Header) -> bytes:
    plain = header_json(header)
    packed = zstandard.ZstdCompressor(level=19, write_checksum=False).compress(plain)
    fixed = _FIXED.pack(MAGIC, VERSION, 0, len(packed), len(plain))
    return fixed + _CHECKSUM.pack(zlib.crc32(packed, zlib.crc32(fixed))) + packed


def _read_head(data: bytes) -> tuple[Header, int]:
    start = _FIXED.size + _CHECKSUM.size
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise _damaged("an archive of Gracile", f"{data[:8]!r}" if data else "an empty file")
    _, version, flags, size, plain_size = _FIXED.unpack_from(data)
    if version != VERSION or flags:
        raise StorageError(
            "archive",
            wanted=f"format version {VERSION}",
            found=f"{version}, flags {flags}",
            do="Update Gracile, or check the file: a newer version wrote it or it is damaged.",
        )
    packed = data[start : start + size]
    if len(packed) != size or plain_size > LARGEST_HEADER:
        raise _damaged(f"a header of {size} bytes, at most {LARGEST_HEADER} unpacked", f"{len(packed)}")
    (wanted,) = _CHECKSUM.unpack_from(data, _FIXED.size)
    if zlib.crc32(packed, zlib.crc32(data[: _FIXED.size])) != wanted:
        raise _damaged("a header that fits its checksum", "another")
    try:
        if zstandard.frame_content_size(packed) != plain_size:
            raise _damaged(f"a header of {plain_size} bytes", "another size")
        plain = zstandard.ZstdDecompressor().decompress(packed, plain_size, allow_extra_data=False)
        return _adapter().validate_python(json.loads(plain)), start + size
    except (zstandard.ZstdError, ValueError, RecursionError, ValidationError) as error:
        raise _damaged("a header that archives have", str(error).splitlines()[0][:200]) from error


def _read_tensors(header: Header, data: bytes, at: int, max_bytes: int) -> dict[str, Tensor]:
    _check_sizes(header.tensors, len(data) - at, max_bytes)
    tensors: dict[str, Tensor] = {}
    for entry in header.tensors:
        if entry.name in tensors:
            raise _damaged("each tensor once", entry.name)
        if entry.values == "same":
            if entry.of not in tensors or tensors[entry.of].shape != entry.shape:
                raise _damaged(f"the tensor that {entry.name} equals", entry.of)
            tensors[entry.name] = tensors[entry.of]
            continue
        body = data[at : at + entry.size]
        (wanted,) = _CHECKSUM.unpack_from(data, at + entry.size)
        if zlib.crc32(body) != wanted:
            raise _damaged(f"bytes of {entry.name} that fit their checksum", "others")
        try:
            tensors[entry.name] = decode_tensor(entry, body)
        except (ValueError, IndexError, OverflowError, RuntimeError, MemoryError) as error:
            raise _damaged(f"a tensor {entry.name}", str(error)[:200]) from error
        at += entry.size + _CHECKSUM.size
    return tensors


def _check_sizes(entries: tuple[Entry, ...], left: int, max_bytes: int) -> None:
    """Refuse before anything is allocated: sizes that are not those of the file, or that fill the memory."""
    sizes = [entry.size + _CHECKSUM.size for entry in entries if entry.values != "same"]
    if min(sizes, default=0) < 0 or sum(sizes) != left:
        raise _damaged(f"{sum(sizes)} bytes of tensors", f"{left}; the file is cut off or damaged")
    memory = 0
    for entry in entries:
        if entry.dtype not in DTYPES or any(size < 0 for size in entry.shape) or len(entry.shape) > 64:
            raise _damaged(f"a type and a shape of {entry.name}", f"{entry.dtype} {entry.shape[:8]}")
        memory += entry.numel * entry.item_bytes
        if memory <= max_bytes:
            _check_symbols(entry)
    if memory > max_bytes:
        raise StorageError(
            "archive",
            wanted=f"tensors of at most {max_bytes:,} bytes",
            found=f"{memory:,}",
            do="Allow more with max_bytes, if you trust the file.",
        )


def _check_symbols(entry: Entry) -> None:
    """Refuse more streams than a tensor can have, and more symbols than its bytes and their places."""
    gaps = entry.layout == "gaps"
    most, counts = entry.numel * (entry.item_bytes + gaps), [stream.count for stream in entry.streams]
    if len(counts) > entry.item_bytes + gaps or min(counts, default=0) < 0 or sum(counts) > most:
        raise _damaged(f"at most {most} symbols of {entry.name}", f"{sum(counts)} in {len(counts)} streams")


def _damaged(wanted: str, found: str) -> StorageError:
    do = "The file is damaged or not an archive: get or make it again."
    return StorageError("archive", wanted=wanted, found=found, do=do)


def memory_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of tensors in memory, shared ones once.

    Example:
        >>> import torch
        >>> memory_bytes({"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.int8)})
        14
    """
    seen = {(t.data_ptr(), t.shape): t.numel() * t.element_size() for t in tensors.values()}
    return sum(seen.values())
