"""MNIST and Fashion-MNIST from their idx files.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998), which also describes the
idx format: two zero bytes, a type, the number of axes, the axes' lengths as big-endian 32-bit integers, then
the values. Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747 (2017), in the same files.
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
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def mnist(
    root: Path | None = None, *, mean: Sequence[float] = (0.1307,), std: Sequence[float] = (0.3081,)
) -> DataBundle:
    """MNIST from ``root/mnist/*-ubyte.gz``, or downloaded where there is no such folder.

    Raises:
        DataError: A file is absent, truncated or of another format, or images and labels differ in number.
    """
    return _bundle("mnist", [root / "mnist"] if root is not None else [], root, mean, std, flip=False)


def fashion_mnist(
    root: Path | None = None, *, mean: Sequence[float] = (0.2860,), std: Sequence[float] = (0.3530,)
) -> DataBundle:
    """Fashion-MNIST from ``root/fashion-mnist``, else from Debian's package, else downloaded.

    The files are named as MNIST's, with ``.gz`` or without; Debian's package ``dataset-fashion-mnist`` puts
    them into ``/usr/share/datasets/fashion-mnist``. Augmentation mirrors: clothes have no left and right.

    Raises:
        DataError: A file is absent, truncated or of another format, or images and labels differ in number.
    """
    folders = [root / "fashion-mnist", _DEBIAN] if root is not None else [_DEBIAN]
    return _bundle("fashion-mnist", folders, root, mean, std, flip=True)


def _bundle(
    name: str,
    folders: Sequence[Path],
    root: Path | None,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    flip: bool,
) -> DataBundle:
    """The first of ``folders`` that exists, or the download."""
    folder = next((path for path in folders if path.is_dir()), None)
    if folder is not None:
        parts = [_part(folder, part) for part in ("train", "t10k")]
    else:
        parts = list(original(name, root))
    train, test = (
        TensorData(images, labels, mean=mean, std=std, padding=2, flip=flip) for images, labels in parts
    )
    return DataBundle(
        name=name,
        train=train,
        test=test,
        classes=10,
        input_shape=(1, 28, 28),
        mean=tuple(mean),
        std=tuple(std),
    )


def read_idx(path: Path) -> Tensor:
    """Read an idx file of unsigned bytes; gzipped when its name ends in ``.gz``.

    Raises:
        DataError: The file is absent, truncated, or holds something else.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.gz"
        >>> _ = file.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])))
        >>> read_idx(file)
        tensor([7, 8, 9], dtype=torch.uint8)
    """
    kind = "gzipped idx" if path.suffix == ".gz" else "idx"
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            str(path), wanted=f"a whole {kind} file", found=str(error), do="Copy or download it again."
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
    images, labels = (
        read_idx(plain if (plain := folder / f"{name}-{rest}-ubyte").is_file() else Path(f"{plain}.gz"))
        for rest in ("images-idx3", "labels-idx1")
    )
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {name}",
            wanted="images (n, height, width) and n labels",
            found=f"images {tuple(images.shape)} and labels {tuple(labels.shape)}",
        )
    return images.unsqueeze(1), labels
