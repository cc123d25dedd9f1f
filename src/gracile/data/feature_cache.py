"""Tensors that are slow to compute, kept in a file that is named by everything they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from gracile.errors import StorageError
from gracile.records import atomic_write

_log = logging.getLogger("gracile.data")


def fingerprint(paths: Iterable[Path], folder: Path, choices: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that change with any file (name, size, time) and any choice.

    Example:
        >>> one, two = (fingerprint([], Path(), {"bins": bins}) for bins in (40, 80))
        >>> len(one), one == two
        (16, False)
    """
    facts = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    text = json.dumps([facts, dict(choices)], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(file: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of ``file``, or computed and written there.

    A damaged file is computed anew; one that cannot be written is a warning, not an end.

    Args:
        file: ``.safetensors``.
        compute: Gives the tensors.
    """
    if file.is_file():
        try:
            kept: dict[str, Tensor] = safetensors.torch.load_file(file)
            return kept
        except (safetensors.SafetensorError, OSError) as error:
            _log.warning("%s is damaged (%s): computed again.", file, error)
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    try:
        with atomic_write(file) as temporary:
            safetensors.torch.save_file(tensors, temporary)
    except (StorageError, safetensors.SafetensorError, OSError) as error:
        _log.warning("the features are not kept: %s", error)
    return tensors
