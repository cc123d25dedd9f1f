"""Idx files, whole and broken."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import pytest
import torch

from gracile.data import fashion_mnist, load_data, mnist
from gracile.data.mnist import read_idx
from gracile.errors import DataError


def idx(values: torch.Tensor) -> bytes:
    shape = values.shape
    return (
        struct.pack(f">BBBB{len(shape)}i", 0, 0, 8, len(shape), *shape)
        + values.to(torch.uint8).numpy().tobytes()
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "mnist").mkdir()
    for name, count in (("train", 6), ("t10k", 3)):
        images = torch.arange(count).view(-1, 1, 1).repeat(1, 28, 28)
        (tmp_path / "mnist" / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / "mnist" / f"{name}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(idx(torch.arange(count)))
        )
    return tmp_path


def test_images_and_labels(root: Path) -> None:
    data = mnist(root, mean=(0.0,), std=(1.0,))
    assert (len(data.train), len(data.test)) == (6, 3)
    image, label = data.train[5]
    assert label == 5
    torch.testing.assert_close(image, torch.full((1, 28, 28), 5 / 255))


def test_shared_copy(data_root: Path) -> None:
    data = load_data("mnist", data_root)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    images = data.calibration(2000)
    assert images.shape == (2000, 1, 28, 28)
    assert abs(images.mean()) < 0.03
    assert abs(images.std() - 1) < 0.03


def damage(root: Path, content: bytes) -> None:
    (root / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(torch.zeros(6, 28, 28)))[:-20], r"train-images.*wanted a whole gzipped idx file"),
        (b"", r"train-images.*an idx file of unsigned bytes"),
        (b"no gzip at all", r"train-images.*wanted a whole gzipped idx file, found Not a gzipped file"),
        (
            gzip.compress(b"PK\3\4 something"),
            r"wanted an idx file of unsigned bytes, found the start 504b0304",
        ),
        (
            gzip.compress(idx(torch.zeros(6, 28, 28))[:-5]),
            r"wanted 4,704 values for .*, found 4,699\. .*cut short",
        ),
        (
            gzip.compress(idx(torch.zeros(6, 28, 28))[:9]),
            r"wanted the lengths of 3 axes, found a file cut short",
        ),
        (gzip.compress(idx(torch.zeros(5, 28, 28))), r"found images \(5, 28, 28\) and labels \(6,\)"),
    ],
    ids=["gzip cut", "empty", "no gzip", "no idx", "values cut", "header cut", "too few"],
)
def test_damaged_images(root: Path, content: bytes, message: str) -> None:
    damage(root, content)
    with pytest.raises(DataError, match=message):
        mnist(root)


def test_absent_file(root: Path) -> None:
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        DataError, match=r"t10k-labels-idx1-ubyte\.gz: wanted a whole gzipped idx file, found .*No such"
    ):
        mnist(root)


def test_read_idx_keeps_every_value(tmp_path: Path) -> None:
    values = torch.randint(0, 256, (3, 4, 5))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(values)))
    assert torch.equal(read_idx(tmp_path / "a.gz").long(), values)


@pytest.mark.parametrize("gzipped", [True, False])
def test_fashion_mnist_with_and_without_gzip(root: Path, gzipped: bool) -> None:
    (root / "mnist").rename(root / "fashion-mnist")
    if not gzipped:
        for path in list((root / "fashion-mnist").iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    data = load_data("fashion-mnist", root, mean=(0.0,), std=(1.0,))
    assert (data.name, len(data.train), len(data.test), data.classes) == ("fashion-mnist", 6, 3, 10)
    torch.testing.assert_close(data.train[5][0], torch.full((1, 28, 28), 5 / 255))


def test_fashion_mnist_from_the_package_of_the_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["gracile.data.mnist"], "_DEBIAN", root / "mnist")
    assert len(fashion_mnist().train) == 6
    (root / "fashion-mnist").mkdir()
    with pytest.raises(DataError, match=r"fashion-mnist/train-images-idx3-ubyte\.gz: wanted a whole gzipped"):
        fashion_mnist(root)


def test_an_absent_plain_file_is_asked_for_by_its_usual_name(root: Path) -> None:
    (root / "mnist" / "train-labels-idx1-ubyte.gz").rename(root / "mnist" / "train-labels-idx1-ubyte")
    with pytest.raises(DataError, match="wanted an idx file of unsigned bytes, found the start 1f8b"):
        mnist(root)
