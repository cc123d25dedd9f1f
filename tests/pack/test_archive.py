"""The file: what is written comes back, and what was touched is refused."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from torch import Tensor, nn

from gracile import pack
from gracile.errors import StorageError
from gracile.pack import archive
from gracile.pack.archive import MAGIC, header_json
from gracile.testing import net


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small archive with a graph and several kinds of tensors."""
    model, inputs = net("depthwise")
    with torch.no_grad():
        model.stem.weight.mul_(torch.rand_like(model.stem.weight) < 0.1)
        model.excite.weight.sign_()
    path = tmp_path_factory.mktemp("archive") / "net.gracile"
    pack.save(model, path, inputs)
    return path.read_bytes()


def refused(data: bytes, path: Path) -> bool:
    """Whether a file of these bytes is refused with an error of ours that names it."""
    path.write_bytes(data)
    try:
        pack.load(path)
    except StorageError as error:
        return error.where == str(path)
    return False


def test_every_flipped_byte_is_refused(file: bytes, tmp_path: Path) -> None:
    places = [*range(40), *random.Random(0).sample(range(40, len(file)), 160), len(file) - 1]
    for place in places:
        flipped = bytearray(file)
        flipped[place] ^= 1 << (place % 8)
        assert refused(bytes(flipped), tmp_path / "a.gracile"), place


def test_a_file_cut_off_anywhere_is_refused(file: bytes, tmp_path: Path) -> None:
    for size in [*range(30), *random.Random(0).sample(range(30, len(file)), 80), len(file) - 1]:
        assert refused(file[:size], tmp_path / "a.gracile"), size
    assert refused(file + b"\0", tmp_path / "a.gracile")


def test_sizes_are_what_the_format_says(file: bytes) -> None:
    magic, version, flags, size, plain_size = struct.unpack_from("<8sHHII", file)
    assert (magic, version, flags) == (MAGIC, 1, 0)
    plain = zstandard.ZstdDecompressor().decompress(file[24 : 24 + size])
    assert len(plain) == plain_size
    assert zlib.crc32(file[:20] + file[24 : 24 + size]) == struct.unpack_from("<I", file, 20)[0]
    at = 24 + size
    for entry in json.loads(plain)["tensors"]:
        body = file[at : at + entry.get("size", 0)]
        assert sum(s.get("size", 0) for s in entry.get("streams", ())) <= entry.get("size", 0)
        assert zlib.crc32(body) == struct.unpack_from("<I", file, at + entry.get("size", 0))[0]
        at += entry.get("size", 0) + 4
    assert at == len(file)


def test_a_newer_version_is_named(file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "new.gracile"
    path.write_bytes(file[:8] + struct.pack("<H", 2) + file[10:])
    with pytest.raises(StorageError, match=r"format version 1, found 2.*Update Gracile"):
        pack.load(path)
    path.write_bytes(b"PK\x03\x04" + file)
    with pytest.raises(StorageError, match="an archive of Gracile"):
        pack.load(path)
    with pytest.raises(StorageError, match="to read this file"):
        pack.load(tmp_path / "none.gracile")


def forged(file: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The archive with another header, its checksums made right again."""
    size = struct.unpack_from("<I", file, 12)[0]
    header = json.loads(zstandard.ZstdDecompressor().decompress(file[24 : 24 + size]))
    change(header)
    plain = json.dumps(header).encode()
    packed = zstandard.ZstdCompressor().compress(plain)
    fixed = struct.pack("<8sHHII", MAGIC, 1, 0, len(packed), len(plain))
    return fixed + struct.pack("<I", zlib.crc32(fixed + packed)) + packed + file[24 + size :]


def deep(levels: int) -> list[Any]:
    """Lists in lists."""
    return [deep(levels - 1)] if levels else []


def node(header: dict[str, Any], kind: str) -> dict[str, Any]:
    """The first node of a kind."""
    return next(n for n in header["graph"] if n["op"].startswith(kind))


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "huge shape": lambda h: h["tensors"][0].update(shape=[1 << 40, 1 << 40]),
    "huge count": lambda h: h["tensors"][0]["streams"][0].update(count=1 << 60, alphabet=1, size=0),
    "huge size": lambda h: h["tensors"][0].update(size=1 << 60),
    "negative size": lambda h: h["tensors"][0].update(size=-4),
    "text for a number": lambda h: h["tensors"][0].update(shape=["a"]),
    "a key too many": lambda h: h.update(code="import os"),
    "no such type": lambda h: h["tensors"][0].update(dtype="object"),
    "twice the same name": lambda h: h["tensors"][1].update(name=h["tensors"][0]["name"]),
    "a path upwards": lambda h: h["tensors"][0].update(name="../../etc/passwd"),
    "a method's name": lambda h: h["tensors"][0].update(name="forward"),
    "a private name": lambda h: h["tensors"][0].update(name="_parameters.x"),
    "an operation on files": lambda h: node(h, "aten.conv2d").update(op="aten.from_file.default"),
    "an operation in place": lambda h: node(h, "aten.conv2d").update(op="aten.relu_.default"),
    "python": lambda h: node(h, "aten.conv2d").update(op="os.system"),
    "no such overload": lambda h: node(h, "aten.conv2d").update(op="aten.conv2d.__class__"),
    "a method": lambda h: node(h, "aten.conv2d").update(op="call_method"),
    "code as a name": lambda h: node(h, "aten.conv2d").update(name="x = __import__('os')"),
    "a keyword as a name": lambda h: node(h, "aten.conv2d").update(name="import"),
    "code as a target": lambda h: node(h, "tensor").update(target="stem.weight); print(1"),
    "a tensor that is not there": lambda h: node(h, "tensor").update(target="stem.nothing"),
    "a method as a tensor": lambda h: node(h, "tensor").update(target="forward"),
    "code as an argument": lambda h: node(h, "aten.conv2d").update(args=[{"text": "'); print(1)#"}]),
    "an unknown tag": lambda h: node(h, "aten.conv2d").update(args=[{"object": "os"}]),
    "a function as a type": lambda h: node(h, "aten.conv2d").update(args=[{"dtype": "load"}]),
    "a later node": lambda h: node(h, "aten.conv2d").update(args=["%output"]),
    "very deep": lambda h: node(h, "aten.conv2d").update(args=deep(30)),
    "code as a keyword": lambda h: node(h, "aten.conv2d").update(kwargs={"a b": 1}),
    "no output": lambda h: h["graph"].pop(),
    "a class of others": lambda h: h.update(parts=[{"path": "a", "kind": "Sequential"}]),
    "a method overwritten": lambda h: h.update(
        parts=[{"path": "a", "kind": "SpatialMean", "attributes": {"forward": 1}}]
    ),
    "a mapping as an attribute": lambda h: h.update(
        parts=[{"path": "a", "kind": "SpatialMean", "attributes": {"keepdim": {"a": 1}}}]
    ),
    "a plan that is none": lambda h: h.update(quantized={"weights": [{"layer": 3}], "edges": []}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused(name: str, file: bytes, tmp_path: Path) -> None:
    assert not refused(forged(file, lambda h: None), tmp_path / "good.gracile")
    assert refused(forged(file, HOSTILE[name]), tmp_path / "bad.gracile")


def test_what_takes_too_much_memory_is_refused_before(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gracile"
    pack.save(nn.Linear(1000, 1000, bias=False).requires_grad_(False).apply(_zero), path)
    assert path.stat().st_size < 250
    assert pack.read_archive(path, max_bytes=4_000_000).tensors["weight"].sum() == 0
    with pytest.raises(StorageError, match="max_bytes"):
        pack.read_archive(path, max_bytes=3_999_999)


@pytest.mark.parametrize(
    ("values", "layout", "counts"),
    [
        ("bytes", "dense", [1_000_000] * 300),
        ("range", "dense", [1_000_000] * 300),
        ("range", "gaps", [1_000_000, 1_000_001]),
        ("range", "dense", [1_000_001]),
        ("range", "dense", [-1]),
    ],
)
def test_streams_that_no_tensor_has_are_refused_before_they_are_read(
    values: Any, layout: Any, counts: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    streams = tuple(pack.Stream(count=count) for count in counts)  # an alphabet of one takes no bytes
    entry = pack.Entry(
        name="w", dtype="uint8", shape=(1_000_000,), values=values, layout=layout, streams=streams
    )
    path = tmp_path / "bomb.gracile"
    path.write_bytes(archive._head(pack.Header(tensors=(entry,))) + struct.pack("<I", zlib.crc32(b"")))
    monkeypatch.setattr(archive, "decode_tensor", lambda *_: pytest.fail("was read"))
    with pytest.raises(StorageError, match="symbols of w"):
        pack.read_archive(path, max_bytes=1_000_000)


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("good", torch.zeros(3))
            self.register_buffer("odd", torch.zeros(3, dtype=torch.complex64))

    with pytest.raises(StorageError, match="complex64"):
        pack.save(Odd(), tmp_path / "odd.gracile")
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_one_memory_are_stored_once(tmp_path: Path) -> None:
    tied: dict[str, Tensor] = {"a": torch.randn(50, 50)}
    tied["b"] = tied["a"]
    header = pack.write_archive(tmp_path / "tied.gracile", pack.Header(), tied)
    assert [entry.values for entry in header.tensors] == ["bytes", "same"]
    archive = pack.read_archive(tmp_path / "tied.gracile")
    assert torch.equal(archive.tensors["b"], tied["b"])
    assert archive.header == header == pack.read_header(tmp_path / "tied.gracile")
    assert b'"of":"a"' in header_json(header)
