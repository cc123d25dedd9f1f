"""WebP sheets, whole and broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gracile.data import TensorData, cifar10, load_data
from gracile.data.cifar10 import read_sheet
from gracile.errors import DataError


def sheet(images: torch.Tensor, columns: int = 4) -> Image.Image:
    """Lay tiles out by loops."""
    rows = len(images) // columns
    picture = np.zeros((rows * 32, columns * 32, 3), np.uint8)
    for i, image in enumerate(images):
        row, column = 32 * (i // columns), 32 * (i % columns)
        picture[row : row + 32, column : column + 32] = image.permute(1, 2, 0).numpy()
    return Image.fromarray(picture)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture
def root(tmp_path: Path, images: torch.Tensor) -> Path:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, part in (("train_0", images[:8]), ("train_1", images[8:16]), ("test_first4", images[16:])):
        sheet(part).save(folder / f"{name}.webp", lossless=True)
    np.save(folder / "train_labels.npy", np.arange(16, dtype=np.uint8) % 10)
    np.save(folder / "test_labels.npy", np.arange(4, dtype=np.uint8))
    return tmp_path


def test_tiles_and_labels_in_order(root: Path, images: torch.Tensor) -> None:
    data = cifar10(root)
    assert isinstance(data.train, TensorData)
    assert isinstance(data.test, TensorData)
    assert torch.equal(data.train.images, images[:16])
    assert torch.equal(data.test.images, images[16:])
    assert data.train.labels.tolist() == [i % 10 for i in range(16)]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    torch.testing.assert_close(data.test[1][0], (images[17] / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_shared_copy(data_root: Path) -> None:
    data = load_data("cifar10", data_root)
    assert (len(data.train), len(data.test)) == (50_000, 1_000)
    assert isinstance(data.train, TensorData)
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    means = data.train.images.float().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-4, rtol=0)


def test_truncated_sheet(root: Path) -> None:
    file = root / "cifar10" / "train_1.webp"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"train_1\.webp: wanted a whole WebP sheet"):
        cifar10(root)


def test_missing_sheet(root: Path) -> None:
    (root / "cifar10" / "train_1.webp").unlink()
    with pytest.raises(DataError, match=r"found 8 images in 1 sheets and 16 labels\. A sheet is missing"):
        cifar10(root)


def test_no_sheets(root: Path) -> None:
    (root / "cifar10" / "test_first4.webp").unlink()
    with pytest.raises(DataError, match=r"wanted sheets test_\*\.webp, found none"):
        cifar10(root)


def test_sheet_of_another_size(tmp_path: Path) -> None:
    Image.new("RGB", (64, 40)).save(tmp_path / "a.webp")
    with pytest.raises(DataError, match="wanted tiles of 32x32 pixels, found a picture of 64x40"):
        read_sheet(tmp_path / "a.webp")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train_labels\.npy: wanted a whole \.npy file of labels"),
        (b"\x93NUMPY\x01\x00v\x00", r"train_labels\.npy: wanted a whole \.npy file of labels"),
        (None, r"train_labels\.npy: .*No such file"),
    ],
)
def test_damaged_labels(root: Path, content: bytes | None, message: str) -> None:
    file = root / "cifar10" / "train_labels.npy"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        cifar10(root)


def test_no_labels(root: Path) -> None:
    np.save(root / "cifar10" / "train_labels.npy", np.zeros(0, np.uint8))
    with pytest.raises(DataError, match=r"wanted a row of class indices, found none, of shape \(0,\)"):
        cifar10(root)


@pytest.mark.parametrize("labels", [np.arange(16), -np.ones(16, int), np.zeros(16), np.zeros((16, 1), int)])
def test_labels_that_are_none(root: Path, labels: np.ndarray) -> None:
    np.save(root / "cifar10" / "train_labels.npy", labels)
    with pytest.raises(DataError, match="wanted a row of class indices from 0 to 9, found"):
        cifar10(root)


def test_pickled_labels_are_not_opened(root: Path) -> None:
    np.save(root / "cifar10" / "train_labels.npy", np.array([{}] * 16, dtype=object))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        cifar10(root)
