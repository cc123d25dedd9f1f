"""Gracile's own modules inside a graph (quantizers, means) as plain data, and back.

Only classes that ``gracile.nn`` names can be made. Their constructors are not run: plain attributes are set
and tensors registered under the names that the class had.
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict
from torch import nn

import gracile.nn
from gracile.errors import UnsupportedOperation

from .streams import broken

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,60}\Z")
_PART = re.compile(r"[\w +,/:=@()\[\]-]{1,200}\Z")  # without quotes and backslashes: fx writes them into code
_DEEPEST = 40

CLASSES: dict[str, type[nn.Module]] = {
    name: kind
    for name, kind in vars(gracile.nn).items()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not gracile.nn.QuantizedModel
}
"""Classes that an archive may name."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module at ``path``: its class and its plain attributes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    path: str
    kind: str
    attributes: dict[str, Any] = field(default_factory=dict)


def modules_to_plain(root: nn.Module) -> tuple[Part, ...]:
    """Every module below ``root`` that is more than a holder of others.

    Raises:
        UnsupportedOperation: A module is of another class, or holds more than plain data.
    """
    parts = []
    known = {kind: name for name, kind in CLASSES.items()}
    for path, module in root.named_modules():
        if path == "" or type(module) is nn.Module:
            continue
        if type(module) not in known:
            raise UnsupportedOperation(
                path, wanted="a captured graph with Gracile's own modules", found=type(module).__name__
            )
        found = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        if wrong := [k for k, v in found.items() if not is_plain(v)]:
            raise UnsupportedOperation(
                path, wanted="plain attributes", found=f"{wrong[0]}={found[wrong[0]]!r}"[:80]
            )
        parts.append(Part(path=path, kind=known[type(module)], attributes=found))
    return tuple(parts)


def modules_from_plain(parts: tuple[Part, ...], root: nn.Module) -> None:
    """Put the modules into ``root``; their tensors are still missing.

    Raises:
        StorageError: A part is not what archives may hold.
    """
    for part in parts:
        if part.kind not in CLASSES:
            raise broken(f"one of {', '.join(CLASSES)}", repr(part.kind)[:80])
        kind = CLASSES[part.kind]
        module = kind.__new__(kind)
        nn.Module.__init__(module)
        for name, value in part.attributes.items():
            value = tuple_of(value)
            if not _ATTRIBUTE.match(name) or hasattr(module, name) or not is_plain(value):
                raise broken(f"plain attributes of {part.kind}", f"{name}={value!r}"[:80])
            setattr(module, name, value)
        put(root, part.path, module)


def put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Add ``module`` at a dotted path, with plain modules above it.

    Raises:
        StorageError: Something is there already, or the path cannot be.
    """
    owner, last = holder(root, path)
    if last in owner._modules or hasattr(owner, last):
        raise broken("one module at a path", repr(path)[:80])
    owner.add_module(last, module)


def holder(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds what is at ``path``, made where there is none, and the last part of the path.

    Raises:
        StorageError: The path cannot be.
    """
    *above, last = path.split(".")
    if not is_path(path):
        raise broken("a dotted path", repr(path)[:80])
    owner = root
    for part in above:
        if part not in owner._modules:
            if hasattr(owner, part):
                raise broken("a path that no attribute has", repr(path)[:80])
            owner.add_module(part, nn.Module())
        found = owner._modules[part]
        assert found is not None
        owner = found
    return owner, last


def is_path(text: str) -> bool:
    """Whether a module or tensor of an archive may be called so.

    A captured graph is turned into Python by fx: names become attributes where they can, else quoted texts.
    So no part may end a quoted text, be a keyword, or be another name to Python than it is to PyTorch.

    Example:
        >>> [is_path(text) for text in ("layer1.0.weight", "branch-1.größe", 'a"b', "a.class", "", "ﬁ")]
        [True, True, False, False, False, False]
    """
    parts = text.split(".")
    return len(parts) <= _DEEPEST + 1 and all(
        _PART.match(part)
        and not keyword.iskeyword(part)
        and (not part.isidentifier() or unicodedata.normalize("NFKC", part) == part)
        for part in parts
    )


def is_plain(value: object) -> bool:
    """Numbers, texts, ``None``, and tuples or lists of them."""
    if isinstance(value, tuple | list):
        return len(value) <= 4096 and all(is_plain(v) for v in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def tuple_of(value: Any) -> Any:
    """Lists become tuples: JSON has no tuples, and our modules hold no lists."""
    return tuple(tuple_of(v) for v in value) if isinstance(value, list) else value
