"""The shape of a chat completion request as it arrives, before its rules are checked.

Parameters that OpenAI defines and that are not served yet are kept as undecoded bytes: they are
refused by name, and a hostile value costs nothing to hold.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

import msgspec

from inference.gateway.wire.shapes import ResponseFormat
from inference.gateway.wire.tool_schema import PastCall, Tool

ABSENT: Final = msgspec.Raw(b"")

# A harmless value is short; a longer one is refused without being decoded.
_HARMLESS_BYTES: Final = 64


class Part(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One element of a message's content list."""

    type: str
    text: str | None = None
    image_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT
    file: msgspec.Raw = ABSENT
    refusal: msgspec.Raw = ABSENT
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class IncomingMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message of the conversation."""

    role: str
    content: str | list[Part] | None = None
    name: msgspec.Raw = ABSENT
    refusal: msgspec.Raw = ABSENT
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None
    # What a model thought before is never shown to it again.
    reasoning_content: str | None = None
    function_call: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT
    annotations: msgspec.Raw = ABSENT


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a stream carries beside its text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class IncomingRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/chat/completions``."""

    model: str
    messages: list[IncomingMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    audio: msgspec.Raw = ABSENT
    frequency_penalty: msgspec.Raw = ABSENT
    function_call: msgspec.Raw = ABSENT
    functions: msgspec.Raw = ABSENT
    logit_bias: msgspec.Raw = ABSENT
    logprobs: bool | None = None
    metadata: msgspec.Raw = ABSENT
    modalities: msgspec.Raw = ABSENT
    moderation: msgspec.Raw = ABSENT
    n: int | None = None
    parallel_tool_calls: bool | None = None
    prediction: msgspec.Raw = ABSENT
    presence_penalty: msgspec.Raw = ABSENT
    prompt_cache_options: msgspec.Raw = ABSENT
    prompt_cache_retention: msgspec.Raw = ABSENT
    reasoning_effort: msgspec.Raw = ABSENT
    response_format: ResponseFormat | None = None
    service_tier: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    tools: list[Tool] | None = None
    top_logprobs: int | None = None
    verbosity: msgspec.Raw = ABSENT
    web_search_options: msgspec.Raw = ABSENT
    # vLLM's, not OpenAI's.
    top_k: int | None = None
    min_tokens: int | None = None


class Unsupported:
    """The fields of a struct that are known and not served, and the values that ask for nothing.

    Args:
        accepted: for each field the values beside null that change nothing, such as ``n: 1``.
    """

    def __init__(self, accepted: dict[str, tuple[object, ...]]) -> None:
        self.accepted: Final = accepted
        self._names: Final = tuple(accepted)
        self._values: Final = _getter(*accepted)
        self._all_absent: Final = (ABSENT,) * len(accepted)

    def first(self, struct: msgspec.Struct) -> str | None:
        """The name of the first field that asks for something, or None.

        Raises:
            msgspec.MsgspecError: a short value is not JSON.
        """
        values = self._values(struct)
        if values == self._all_absent:
            return None
        for name, raw in zip(self._names, values, strict=True):
            if raw is not ABSENT and not self._harmless(name, raw):
                return name
        return None

    def _harmless(self, name: str, raw: msgspec.Raw) -> bool:
        if len(memoryview(raw)) > _HARMLESS_BYTES:
            return False
        value: Any = msgspec.json.decode(raw)
        return value is None or any(_same(value, accepted) for accepted in self.accepted[name])


def _getter(*names: str) -> Callable[[object], tuple[msgspec.Raw, ...]]:
    if len(names) > 1:
        return operator.attrgetter(*names)
    # Of one name the getter above would give the bare value.
    (name,) = names
    return lambda struct: (getattr(struct, name),)


def _same(left: object, right: object) -> bool:
    """Equality as JSON means it: in Python ``True == 1``."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


UNSUPPORTED_PARAMETERS: Final = Unsupported(
    {
        "functions": ([],),
        "function_call": ("none", "auto"),
        "logit_bias": ({},),
        "presence_penalty": (0,),
        "frequency_penalty": (0,),
        "audio": (),
        "modalities": (["text"],),
        "prediction": (),
        "reasoning_effort": (),
        "verbosity": ("medium",),
        "web_search_options": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "metadata": ({},),
        "moderation": (),
        "prompt_cache_options": ({}, {"mode": "implicit"}),
        "prompt_cache_retention": ("in_memory",),
    }
)

# The accepted values are those that a client sends when it returns an answer it was given.
UNSUPPORTED_MESSAGE_FIELDS: Final = Unsupported(
    {
        "name": (),
        "refusal": (),
        "function_call": (),
        "audio": (),
        "annotations": ([],),
    }
)

UNSUPPORTED_PART_FIELDS: Final = Unsupported(
    {
        "image_url": (),
        "input_audio": (),
        "file": (),
        "refusal": (),
        "prompt_cache_breakpoint": (),
    }
)

UNSUPPORTED_PART_TYPES: Final = frozenset({"image_url", "input_audio", "file", "refusal"})
UNSUPPORTED_ROLES: Final = frozenset({"function"})
