"""Bounds on the length of texts, where a compiler of grammars pays for each character of them.

OpenVINO's (xgrammar) makes a state of every character that a text may have, and looks at the whole
vocabulary for each: with a ``maxLength`` of 400 a schema took it seconds to compile and every token
most of a second, in a step that all requests of the engine share.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from inference.engines.base import Structure

_BOUNDS: Final = ("minLength", "maxLength")


def without_long_bounds(structure: Structure, most: int) -> Structure:
    """The structure with the longest bounds on texts left out, so that few enough stay.

    Args:
        structure: its schemas are as ``checked_schema`` gives them.
        most: how many characters the bounds that stay may add up to.

    Returns:
        The very same structure where nothing is left out.
    """
    if structure.calls is not None:
        schemas = [tag.schema for tag in structure.calls.tags]
    else:
        schemas = [structure.schema] if structure.schema else []
    loose = _loosened(schemas, most)
    if loose == schemas:
        return structure
    if structure.calls is None:
        return msgspec.structs.replace(structure, schema=loose[0])
    tags = tuple(
        msgspec.structs.replace(tag, schema=schema)
        for tag, schema in zip(structure.calls.tags, loose, strict=True)
    )
    return msgspec.structs.replace(
        structure, calls=msgspec.structs.replace(structure.calls, tags=tags)
    )


def _loosened(schemas: Sequence[str], most: int) -> list[str]:
    decoded = [msgspec.json.decode(schema) for schema in schemas]
    bound = sorted((node for one in decoded for node in _bounded(one)), key=_length)
    total = sum(map(_length, bound))
    if total <= most:
        return list(schemas)
    while total > most:
        longest = bound.pop()
        total -= _length(longest)
        for name in _BOUNDS:
            longest.pop(name, None)
    return [msgspec.json.encode(one).decode() for one in decoded]


def _bounded(schema: Any) -> Iterator[dict[str, Any]]:
    """All schemas within a schema that bound a text."""
    if _length(schema):
        yield schema
    parts = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    parts += schema.get("anyOf", [])
    if "items" in schema:
        parts.append(schema["items"])
    for part in parts:
        yield from _bounded(part)


def _length(schema: dict[str, Any]) -> int:
    return max(int(schema.get(name, 0)) for name in _BOUNDS)
