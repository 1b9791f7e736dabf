"""What an answer must look like, as the APIs of OpenAI ask for it."""

from typing import Final

import msgspec

from inference.engines.base import Structure
from inference.gateway.wire.checks import bounded, invalid, missing
from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.shapes import NO_SCHEMA, ResponseFormat, TextFormat

_NAME_CHARS: Final = 64
_KINDS: Final = ("text", "json_object", "json_schema")


def structure_of(given: ResponseFormat | None) -> Structure | None:
    """The structure that a chat completion asks for, its schema not checked yet.

    Raises:
        Invalid: an unknown type, or a schema that is missing or not expected.
    """
    if given is None:
        return None
    path = "response_format"
    schema = given.json_schema
    if schema is None:
        return _structure(path, given.type, NO_SCHEMA, f"{path}.json_schema")
    bounded(f"{path}.json_schema.name", schema.name, _NAME_CHARS)
    return _structure(path, given.type, schema.schema, f"{path}.json_schema.schema")


def text_structure_of(given: TextFormat | None) -> Structure | None:
    """The structure that a response asks for; see ``structure_of``."""
    if given is None:
        return None
    path = "text.format"
    if given.type == "json_schema":
        if given.name is None:
            raise missing(f"{path}.name")
        bounded(f"{path}.name", given.name, _NAME_CHARS)
    return _structure(path, given.type, given.schema, f"{path}.schema")


def _structure(path: str, kind: str, schema: msgspec.Raw, where: str) -> Structure | None:
    if kind not in _KINDS:
        raise invalid(f"{path}.type", f"unknown type '{shown(kind)}'; use {', '.join(_KINDS)}")
    if kind == "json_schema":
        if schema is NO_SCHEMA:
            raise missing(where)
        return Structure("json_schema", _text(schema, where))
    if schema is not NO_SCHEMA:
        raise invalid(where, "it is only allowed with the type 'json_schema'")
    return Structure("json_object") if kind == "json_object" else None


def _text(schema: msgspec.Raw, where: str) -> str:
    try:
        return bytes(schema).decode()
    except UnicodeDecodeError:
        raise invalid(where, "it is not valid UTF-8", "invalid_unicode") from None
