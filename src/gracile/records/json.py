"""Records to JSON and back, checked against their types by pydantic."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


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
