"""The shape in which the APIs of OpenAI ask for a structure, before its rules are checked."""

from typing import Final

import msgspec

NO_SCHEMA: Final = msgspec.Raw(b"")


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A schema and its name; whatever ``strict`` says, the answer is held to it."""

    name: str
    schema: msgspec.Raw = NO_SCHEMA
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``response_format`` of ``/v1/chat/completions``."""

    type: str
    json_schema: JsonSchema | None = None


class TextFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``text.format`` of ``/v1/responses``, which has the schema's members beside its type."""

    type: str
    name: str | None = None
    schema: msgspec.Raw = NO_SCHEMA
    strict: bool | None = None
    description: str | None = None
