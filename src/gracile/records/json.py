"""Records to JSON and back, checked against their types by pydantic."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}  # making one takes milliseconds


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_json(record: object, *, indent: int | None = 2) -> str:
    """Write a record as JSON text.

    Example:
        >>> from gracile.records import Skipped
        >>> to_json(Skipped(where="fc", why="last layer"), indent=None)
        '{"where":"fc","why":"last layer","source":""}'
    """
    return _adapter(type(record)).dump_json(record, indent=indent).decode()


def from_json(kind: type[T], text: str | bytes) -> T:
    """Read a record of type ``kind`` from JSON text.

    Raises:
        pydantic.ValidationError: The text does not hold such a record.

    Example:
        >>> from gracile.records import Skipped
        >>> from_json(Skipped, '{"where": "fc", "why": "last layer"}').why
        'last layer'
    """
    record: T = _adapter(kind).validate_json(text)
    return record


def to_plain(record: object) -> Any:
    """A record as JSON data (dictionaries, lists, numbers, texts), to put into another one.

    Example:
        >>> from gracile.records import Skipped
        >>> to_plain(Skipped(where="fc", why="last layer"))
        {'where': 'fc', 'why': 'last layer', 'source': ''}
    """
    return _adapter(type(record)).dump_python(record, mode="json")


def from_plain(kind: type[T], data: object) -> T:
    """A record of type ``kind`` from what :func:`to_plain` gave.

    Raises:
        pydantic.ValidationError: The data are not such a record.

    Example:
        >>> from gracile.records import Skipped
        >>> from_plain(Skipped, {"where": "fc", "why": "last layer"}).where
        'fc'
    """
    record: T = _adapter(kind).validate_python(data)
    return record
