"""Keys that say whether a finished step still stands: same recipe so far, same weights, same code."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gracile
from gracile.data import DATA
from gracile.records import is_user_code, sha256, user_files

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


def start_key(recipe: Recipe, weights: Path | None, root: Path | None) -> str:
    """Key of the model before any step: its specification and weights, the data, the seed and our code.

    Args:
        recipe: What is carried out.
        weights: The file that the recipe's name was found at.
        root: Folder of data sets.
    """
    model = recipe.model.model_dump() | {"weights": sha256(weights) if weights else None}
    specs = [spec for spec in (recipe.model.spec, recipe.data.spec) if is_user_code(spec)]
    content = {
        "seed": recipe.seed,
        "model": model,
        "data": recipe.data.model_dump() | _on_disk(recipe.data.spec, root),
        "files": [sha256(file) for spec in specs for file in user_files(spec)],
        "code": code_version(),
    }
    return key_of("", "start", content)


def _on_disk(spec: str, root: Path | None) -> dict[str, Any]:
    """Which folder data are read from, and for a folder of images or sounds the names and sizes in it."""
    loader = DATA.get(spec)
    if loader is not None and "root" not in inspect.signature(loader).parameters:
        return {}
    if loader is not None or is_user_code(spec):
        return {"root": str(root.resolve()) if root else ""}
    folder = ((root or Path()) / Path(spec.partition(":")[2]).expanduser()).resolve()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [(str(path.relative_to(folder)), path.stat().st_size) for path in files]
    return {"folder": str(folder), "listed": key_of("", "files", {"listed": listed})}


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
