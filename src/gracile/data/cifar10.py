"""CIFAR-10 from lossless WebP sheets, or downloaded.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).

A sheet holds 32x32 tiles, 100 a row, row by row: ``train_0.webp``, ``train_1.webp``, ... and
``test_first1000.webp``; ``train_labels.npy`` and ``test_labels.npy`` hold one class index a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gracile.errors import DataError

from .bundle import DataBundle
from .download import original
from .tensor_data import TensorData

_TILE = 32
_CLASSES = 10
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def cifar10(
    root: Path | None = None, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> DataBundle:
    """CIFAR-10 from the sheets in ``root/cifar10``, or downloaded where there is no such folder.

    The sheets have 50,000 training images and the first 1,000 test images, the download all 10,000. The
    default normalisation is the one that the pretrained CIFAR ResNets were trained with.

    Raises:
        DataError: A file is absent or damaged, or images and labels differ in number.
    """
    folder = root / "cifar10" if root is not None else None
    if folder is not None and folder.is_dir():
        parts = _sheets(folder.resolve())
    else:
        parts = original("cifar10", root)
    train, test = (TensorData(images, labels, mean=mean, std=std) for images, labels in parts)
    return DataBundle(
        name="cifar10",
        train=train,
        test=test,
        classes=_CLASSES,
        input_shape=(3, _TILE, _TILE),
        mean=tuple(mean),
        std=tuple(std),
    )


@lru_cache(maxsize=1)  # 154 MB; decoding takes seconds, and one run may ask several times
def _sheets(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    train = sorted(folder.glob("train_*.webp"), key=lambda path: (len(path.name), path.name))
    return _part(folder, "train", train), _part(folder, "test", sorted(folder.glob("test_*.webp")))


def _part(folder: Path, name: str, sheets: Sequence[Path]) -> tuple[Tensor, Tensor]:
    if not sheets:
        raise DataError(str(folder), wanted=f"sheets {name}_*.webp", found="none")
    with ThreadPoolExecutor(max_workers=2) as pool:  # decoding leaves Python's lock
        images = torch.cat(list(pool.map(read_sheet, sheets)))
    labels = _read_labels(folder / f"{name}_labels.npy")
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: {name}",
            wanted="one label for each image",
            found=f"{len(images):,} images in {len(sheets)} sheets and {len(labels):,} labels",
            do="A sheet is missing or belongs to another set: copy the folder again.",
        )
    return images, labels


def read_sheet(path: Path) -> Tensor:
    """Cut a sheet into its tiles: ``(n, 3, 32, 32)`` uint8.

    Raises:
        DataError: The file is no whole image, or its sides are no multiples of 32.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            str(path), wanted="a whole WebP sheet", found=str(error), do="The file is damaged: copy it again."
        ) from error
    rows, columns = pixels.shape[0] // _TILE, pixels.shape[1] // _TILE
    if (rows * _TILE, columns * _TILE) != pixels.shape[:2]:
        raise DataError(
            str(path),
            wanted=f"tiles of {_TILE}x{_TILE} pixels",
            found=f"a picture of {pixels.shape[1]}x{pixels.shape[0]}",
        )
    tiles = pixels.reshape(rows, _TILE, columns, _TILE, 3).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(tiles).reshape(-1, 3, _TILE, _TILE))


def _read_labels(path: Path) -> Tensor:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(str(path), wanted="a whole .npy file of labels", found=str(error)) from error
    if labels.size == 0:
        raise DataError(str(path), wanted="a row of class indices", found=f"none, of shape {labels.shape}")
    if labels.ndim != 1 or labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= _CLASSES:
        raise DataError(
            str(path),
            wanted=f"a row of class indices from 0 to {_CLASSES - 1}",
            found=f"{labels.dtype} {labels.shape} from {labels.min()} to {labels.max()}",
        )
    return torch.from_numpy(labels.astype(np.int64))
