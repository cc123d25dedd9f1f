"""Folders of pictures: layouts, preparation, and everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gracile.data import FolderData, image_folder, load_data
from gracile.errors import BadArgument, DataError
from gracile.observe import Batches


def save(path: Path, value: int = 100, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)
    return path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for i in range(10):
        save(tmp_path / "flat" / f"{3 * i:04d}_n{i}.png", value=i)
    return tmp_path / "flat"


def paths(part: Batches) -> list[str]:
    assert isinstance(part, FolderData)
    return [path.name for path, _ in part.examples]


def test_flat_names_carry_their_class_and_parts_are_disjoint(flat: Path) -> None:
    data = image_folder(flat, size=16, calibration_every=4)
    assert paths(data.train) == ["0000_n0.png", "0012_n4.png", "0024_n8.png"]
    assert not set(paths(data.train)) & set(paths(data.test))
    assert len(data.train) + len(data.test) == 10
    assert [data.train[i][1] for i in range(3)] == [0, 12, 24]
    assert data.classes == 28
    assert image_folder(flat, size=16, classes=1000).classes == 1000


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        for i in range(4):
            save(tmp_path / name / f"{i}.jpg")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").write_text("pictures")
    data = image_folder(tmp_path, size=16, calibration_every=2)
    assert data.classes == 2
    assert [data.test[i][1] for i in range(4)] == [0, 0, 1, 1]
    assert isinstance(data.test, FolderData)
    assert data.test.examples[0][0].parent.name == "cat"


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_ready_made_parts_are_kept(tmp_path: Path, test_name: str) -> None:
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "0.png")
        save(tmp_path / "train" / name / "1.png")
    save(tmp_path / test_name / "b" / "2.png")
    data = image_folder(tmp_path, size=16)
    assert (len(data.train), len(data.test), data.classes) == (4, 1, 2)
    assert data.test[0][1] == 1
    save(tmp_path / test_name / "c" / "3.png")
    with pytest.raises(DataError, match="wanted the classes of the training part, found also c"):
        image_folder(tmp_path, size=16)


def test_preparation_by_hand(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name in ("0_a.png", "1_b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    data = image_folder(tmp_path, size=16, resize=20, mean=mean, std=std)
    cut = torch.from_numpy(pixels[2:18, 7:23].copy()).permute(2, 0, 1) / 255
    by_hand = (cut - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(data.test[0][0], by_hand)
    torch.testing.assert_close(next(data.test.batches(1))[0][0], by_hand)


@pytest.mark.parametrize("size", [(50, 31), (31, 50), (7, 9), (20, 20)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_any_size_becomes_the_square(tmp_path: Path, size: tuple[int, int], interpolation: str) -> None:
    for name in ("0_a.png", "1_b.png"):
        save(tmp_path / name, value=51, size=size)
    data = image_folder(tmp_path, size=20, interpolation=interpolation, mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.testing.assert_close(data.test[0][0], torch.full((3, 20, 20), 0.2))


def test_grey_pictures_get_three_channels(tmp_path: Path) -> None:
    for name in ("0_a.png", "1_b.png"):
        save(tmp_path / name, mode="L")
    assert image_folder(tmp_path, size=8).input_shape == (3, 8, 8)


def test_batches_come_in_order_with_their_labels(flat: Path) -> None:
    data = image_folder(flat, size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    seen = [(images, labels) for images, labels in data.test.batches(3)]
    assert [len(labels) for _, labels in seen] == [3, 3, 2]
    for images, labels in seen:
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long() * 3, labels)


def test_augmentation_repeats_and_moves_the_cut(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for i in range(6):
        Image.fromarray(pixels).save(tmp_path / f"{i}_a.png")
    data = image_folder(tmp_path, size=16, resize=24).test
    first, second = (
        next(data.batches(4, augment=True, generator=torch.Generator().manual_seed(1)))[0] for _ in range(2)
    )
    assert torch.equal(first, second)
    assert len(torch.unique(first, dim=0)) == 4
    assert len(torch.unique(next(data.batches(4))[0], dim=0)) == 1


def test_subset(flat: Path) -> None:
    data = image_folder(flat, size=16)
    part = data.test.subset(torch.tensor([2, 0]))
    assert torch.equal(part[0][0], data.test[2][0])
    assert paths(part) == [paths(data.test)[2], paths(data.test)[0]]


def test_shared_sample(data_root: Path) -> None:
    data = load_data("images:imagenet_sample", data_root, classes=1000, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (len(data.train), len(data.test), data.classes) == (100, 400, 1000)
    images = data.calibration(8)
    assert images.shape == (8, 3, 224, 224)
    assert -1 <= images.min() < images.max() <= 1


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wanted a folder of pictures, found no such folder"):
        image_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="wanted a folder of pictures, found a file"):
        image_folder(save(tmp_path / "a.png"))


@pytest.mark.parametrize("inside", [None, "class/notes.txt", "notes.txt"])
def test_empty_folder(tmp_path: Path, inside: str | None) -> None:
    if inside:
        (tmp_path / inside).parent.mkdir(exist_ok=True)
        (tmp_path / inside).write_text("x")
    with pytest.raises(
        DataError, match=r"wanted pictures \(.*\.png.*\), found an empty folder or other files"
    ):
        image_folder(tmp_path)


def test_too_few_for_two_parts(tmp_path: Path) -> None:
    save(tmp_path / "0_a.png")
    with pytest.raises(DataError, match="wanted pictures for the test part, found too few"):
        image_folder(tmp_path)


def test_a_name_without_class(flat: Path) -> None:
    save(flat / "holiday.png")
    with pytest.raises(DataError, match=r"holiday\.png: wanted a name that begins with the class index"):
        image_folder(flat)


def test_both_layouts(flat: Path) -> None:
    save(flat / "cat" / "1.png")
    with pytest.raises(DataError, match=r"found both: cat/ and 0000_n0\.png"):
        image_folder(flat)


@pytest.mark.parametrize("content", [b"", b"this is not a picture"])
def test_a_file_that_is_no_picture_is_named_at_once(flat: Path, content: bytes) -> None:
    (flat / "0009_n3.png").write_bytes(content)
    with pytest.raises(DataError, match=r"0009_n3\.png: wanted a whole picture"):
        image_folder(flat)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_named_when_reached(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for i in range(4):
        Image.fromarray(noise).save(tmp_path / f"{i}_a.{suffix}")
    file = tmp_path / f"3_a.{suffix}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    data = image_folder(tmp_path, size=16)
    with pytest.raises(DataError, match=rf"3_a\.{suffix}: wanted a whole picture"):
        list(data.test.batches(2))


def test_class_index_beyond_classes(flat: Path) -> None:
    with pytest.raises(DataError, match="wanted at most 20 classes, found class index 27"):
        image_folder(flat, classes=20)


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("size", 0, "at least 1 pixel"),
        ("resize", 100, r"at least size \(224\)"),
        ("interpolation", "nearest", "bilinear or bicubic"),
        ("calibration_every", 1, "at least 2"),
        ("mean", (0.5,), "three numbers"),
        ("std", (0.5, 0.0, 0.5), "three numbers above 0"),
    ],
)
def test_options_out_of_range(flat: Path, option: str, value: object, wanted: str) -> None:
    with pytest.raises(BadArgument, match=f"images: {option}: wanted {wanted}, found"):
        image_folder(flat, **{option: value})  # type: ignore[arg-type]
