"""The original data sets by torchvision, where no local copy was named."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from gracile.errors import DataError, import_extra

_CLASSES = {"cifar10": "CIFAR10", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_FOLDERS = {"cifar10": "cifar-10-batches-py", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_log = logging.getLogger("gracile.data")

Part = tuple[Tensor, Tensor]
"""Images ``(n, channels, height, width)`` uint8 and labels ``(n,)``."""


def original(name: str, root: Path | None) -> tuple[Part, Part]:
    """Training and test part from torchvision's copy, downloaded if need be.

    A copy that torchvision left in ``root`` is used; otherwise the download goes to ``~/.cache/gracile``.
    torchvision checks the files' MD5 before it reads them. ``name`` is ``cifar10``, ``mnist`` or
    ``fashion-mnist``.

    Raises:
        MissingExtra: torchvision is not installed.
        DataError: The download failed.
    """
    datasets = import_extra("torchvision.datasets", "vision")
    cache = Path.home() / ".cache" / "gracile"
    folder = root if root is not None and (root / _FOLDERS[name]).is_dir() else cache
    if not (folder / _FOLDERS[name]).is_dir():
        looked = f"not in {root}" if root is not None else "not on this computer as far as told"
        _log.warning(
            "%s is %s: downloading the original to %s. Name a local copy with --data-root or GRACILE_DATA.",
            name,
            looked,
            folder,
        )
    make = getattr(datasets, _CLASSES[name])
    try:
        parts = [make(folder, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise DataError(
            name,
            wanted="a local copy or a download",
            found=str(error),
            do="Name the folder that holds the data with --data-root or GRACILE_DATA.",
        ) from error
    train, test = ((_images(part.data), torch.as_tensor(part.targets)) for part in parts)
    return train, test


def _images(data: object) -> Tensor:
    images = torch.as_tensor(data)
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
