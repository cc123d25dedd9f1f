"""Validation errors in the user's terms: file, line, field, what was wanted and a guess at what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gracile.errors import RecipeError, did_you_mean

from .source import Loc, Source


def explain(error: ValidationError, source: Source, model: type[BaseModel]) -> RecipeError:
    """Turn pydantic's findings about ``source`` into one error; the first in full, the others briefly.

    Unknown keys come first: a misspelt key is also reported as missing.
    """
    schema = model.model_json_schema()
    found = error.errors(include_url=False)
    details = [detail for detail in found if not _follows(detail, found)]
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    where, wanted, was, do = _facts(details[0], source, schema)
    others = [_facts(detail, source, schema) for detail in details[1:4]]
    more = [f"Also {w}: wanted {a}, found {f}." for w, a, f, _ in others]
    if len(details) > 4:
        more.append(f"And {len(details) - 4} more.")
    return RecipeError(where, wanted=wanted, found=was, do=" ".join(filter(None, [do, *more])))


def _follows(detail: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether a list is only too short because an item of it is wrong: pydantic counts the right ones."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in others
    )


def _facts(detail: ErrorDetails, source: Source, schema: dict[str, Any]) -> tuple[str, str, str, str]:
    loc = _written(detail["loc"], source.data, missing=detail["type"] == "missing")
    context = detail.get("ctx", {})
    kind, found, do = detail["type"], repr(detail["input"]), ""
    if kind == "extra_forbidden":
        known = _fields(schema, loc[:-1], source.data)
        wanted, found = f"one of the keys {', '.join(known)}", f"{loc[-1]!r}"
        do = did_you_mean(str(loc[-1]), known)
    elif kind == "missing":
        wanted, found = "this field", "nothing"
    elif kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        loc = (*loc, "step")
        wanted, found = f"one of the steps {', '.join(tags)}", f"{context['tag']!r}"
        do = did_you_mean(str(context["tag"]), tags)
    elif kind == "union_tag_not_found":
        wanted, found = "`step:` with the name of a technique", "none"
    elif kind == "step_order":
        loc, found = ("steps", int(context["index"])), str(context["found"])
        wanted, do = detail["msg"], str(context["do"])
    else:
        wanted, do = _wanted(detail["msg"]), _close_literal(detail, context)
    return source.where(loc), wanted, found, do


def _wanted(message: str) -> str:
    for start in ("Input should be ", "Value error, "):
        message = message.removeprefix(start)
    return message[:1].lower() + message[1:]


def _close_literal(detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    if detail["type"] != "literal_error":
        return ""
    words = str(context["expected"]).replace(" or ", ", ").split(", ")
    return did_you_mean(str(detail["input"]), [word.strip("'") for word in words])


def _written(loc: Loc, data: Any, *, missing: bool) -> Loc:
    """Keep the parts of pydantic's path that the user wrote or left out (it also names union members)."""
    kept: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(data, dict) and (part in data or (last and missing)):
            kept.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            kept.append(part)
            data = data[part]
    return tuple(kept)


def _fields(schema: dict[str, Any], loc: Loc, data: Any) -> list[str]:
    """Names of the fields that the JSON schema allows at ``loc``."""
    node = schema
    for part in loc:
        data = data[part]
        fields, any_key = node.get("properties", {}), node.get("additionalProperties")
        of_key = fields.get(part, any_key if isinstance(any_key, dict) else {})
        node = node.get("items", {}) if isinstance(part, int) else of_key
        node = _resolve(node, schema, data)
    return list(node.get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any], data: Any) -> dict[str, Any]:
    """Follow references, the chosen member of a tagged union, and ``X | None``."""
    while True:
        if "discriminator" in node and isinstance(data, dict):
            tag = data.get(node["discriminator"]["propertyName"])
            node = {"$ref": node["discriminator"]["mapping"].get(tag, "")}
        elif node.get("$ref"):
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node:
            node = next((member for member in node["anyOf"] if "$ref" in member), {})
        elif "allOf" in node:
            node = node["allOf"][0]
        else:
            return node
