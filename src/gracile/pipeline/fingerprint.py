"""Keys that say whether a finished step still stands: same recipe so far, same weights, same code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gracile
from gracile.records import is_user_code, sha256

from .recipe import Recipe

_SHOWS_ONLY = ("cli", "report", "testing")


def key_of(previous: str, kind: str, config: Mapping[str, Any]) -> str:
    """Key of a stage: everything before it, its kind and its own fields.

    Example:
        >>> key_of("", "fold", {}) == key_of("", "fold", {}) != key_of("", "tune", {"epochs": 1})
        True
    """
    content = json.dumps([previous, kind, config], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def start_key(recipe: Recipe, weights: Path | None) -> str:
    """Key of the model before any step: its specification and weights, the data, the seed and our code."""
    model = recipe.model.model_dump() | {"weights": sha256(weights) if weights else None}
    files = [spec.rpartition(":")[0] for spec in (recipe.model.spec, recipe.data.spec) if is_user_code(spec)]
    content = {
        "seed": recipe.seed,
        "model": model,
        "data": recipe.data.model_dump(),
        "files": [sha256(Path(file)) for file in files if Path(file).is_file()],
        "code": code_version(),
    }
    return key_of("", "start", content)


@cache
def code_version() -> str:
    """Checksum of our sources that compute (not of those that only show) and torch's version."""
    root = Path(gracile.__file__).parent
    digest = hashlib.sha256(package_version("torch").encode())
    for file in sorted(root.rglob("*.py")):
        if file.relative_to(root).parts[0] not in _SHOWS_ONLY:
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def package_version(name: str) -> str:
    """Version of an installed package, or an empty string.

    Example:
        >>> package_version("no-such-package")
        ''
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
