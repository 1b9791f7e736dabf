"""The shape of tools and calls as they arrive, before their rules are checked."""

from typing import Any

import msgspec


class Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a tool is."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A tool as chat completions declare it."""

    type: str
    function: Function | None = None
    custom: msgspec.Raw = msgspec.Raw(b"")


class CalledFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Name and arguments of a past call."""

    name: str
    arguments: str


class PastCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A call of a past answer; ``index`` is a stream's, which some callers leave in."""

    id: str
    type: str = "function"
    function: CalledFunction | None = None
    custom: msgspec.Raw = msgspec.Raw(b"")
    index: int | None = None
