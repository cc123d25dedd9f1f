"""MNIST from its gzipped idx files.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998), which also describes the
idx format: two zero bytes, a type, the number of axes, the axes' lengths as big-endian 32-bit integers, then
the values.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gracile.errors import DataError

from .bundle import DataBundle
from .download import original
from .tensor_data import TensorData

_BYTES = 8  # the idx type code of unsigned bytes


def mnist(
    root: Path | None = None, *, mean: Sequence[float] = (0.1307,), std: Sequence[float] = (0.3081,)
) -> DataBundle:
    """MNIST from ``root/mnist/*-ubyte.gz``, or downloaded where there is no such folder.

    Raises:
        DataError: A file is absent, truncated or of another format, or images and labels differ in number.
    """
    folder = root / "mnist" if root is not None else None
    if folder is not None and folder.is_dir():
        parts = [_part(folder, name) for name in ("train", "t10k")]
    else:
        parts = list(original("mnist", root))
    train, test = (
        TensorData(images, labels, mean=mean, std=std, padding=2, flip=False) for images, labels in parts
    )
    return DataBundle(
        name="mnist",
        train=train,
        test=test,
        classes=10,
        input_shape=(1, 28, 28),
        mean=tuple(mean),
        std=tuple(std),
    )


def read_idx(path: Path) -> Tensor:
    """Read a gzipped idx file of unsigned bytes.

    Raises:
        DataError: The file is absent, truncated, or holds something else.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.gz"
        >>> _ = file.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])))
        >>> read_idx(file)
        tensor([7, 8, 9], dtype=torch.uint8)
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            str(path), wanted="a whole gzipped idx file", found=str(error), do="Copy or download it again."
        ) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _BYTES:
        raise DataError(
            str(path), wanted="an idx file of unsigned bytes", found=f"the start {content[:4].hex()}"
        )
    start = 4 + 4 * content[3]  # after the axes' lengths
    if len(content) < start:
        raise DataError(str(path), wanted=f"the lengths of {content[3]} axes", found="a file cut short")
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    values = content[start:]
    if len(values) != math.prod(shape):
        raise DataError(
            str(path),
            wanted=f"{math.prod(shape):,} values for shape {tuple(shape)}",
            found=f"{len(values):,}",
            do="The file is cut short or damaged: copy or download it again.",
        )
    return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(shape).copy())


def _part(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {name}",
            wanted="images (n, height, width) and n labels",
            found=f"images {tuple(images.shape)} and labels {tuple(labels.shape)}",
        )
    return images.unsqueeze(1), labels
