"""The dialect of ``/v1/responses``: OpenAI's newer API, of which nothing is stored here."""

from typing import Any, ClassVar, Final

import msgspec
from msgspec.structs import replace

from inference.engines.base import Message
from inference.gateway.wire import checks, tools
from inference.gateway.wire.checks import (
    DEFAULT_LIMITS,
    RequestLimits,
    bounded,
    invalid,
    missing,
    unsupported,
)
from inference.gateway.wire.common import Ending, Opening, ParsedRequest
from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.extras import extras_of
from inference.gateway.wire.formats import text_structure_of
from inference.gateway.wire.items import Texts, unsupported_item
from inference.gateway.wire.response import one_line
from inference.gateway.wire.response_events import ResponseEncoder
from inference.gateway.wire.response_reading import ReadResponseEncoder, whole_read_response
from inference.gateway.wire.schema import ABSENT, Unsupported
from inference.gateway.wire.shapes import TextFormat
from inference.gateway.wire.style import OPENAI, Style
from inference.gateway.wire.tool_schema import Function
from inference.payloads import Extras

_MAX_METADATA_PAIRS: Final = 16
_MAX_METADATA_KEY_CHARS: Final = 64
_MAX_METADATA_VALUE_CHARS: Final = 512

_encode: Final = msgspec.json.Encoder().encode


class InputPart(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One element of an item's content; what an answer of ours carries may come back."""

    type: str
    text: str | None = None
    annotations: msgspec.Raw = ABSENT
    logprobs: msgspec.Raw = ABSENT
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class InputItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message; ``id``, ``status`` and ``phase`` are those of an answer that comes back.

    Or a call of a function, its output, or reasoning, which is dropped.
    """

    role: str | None = None
    content: str | list[InputPart] | None = None
    type: str | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    summary: msgspec.Raw = ABSENT
    encrypted_content: msgspec.Raw = ABSENT
    caller: msgspec.Raw = ABSENT
    namespace: msgspec.Raw = ABSENT


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A function; tools that OpenAI runs itself have types of their own."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a stream carries beside its text."""

    include_obfuscation: bool | None = None


class TextOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What the answer's text must look like."""

    format: TextFormat | None = None
    verbosity: str | None = None


class IncomingResponse(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/responses``."""

    model: str
    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # The API's own default is true: said or not, nothing is stored, and the answer says so.
    store: bool | None = None
    access_programs: msgspec.Raw = ABSENT
    background: msgspec.Raw = ABSENT
    background_options: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT
    include: msgspec.Raw = ABSENT
    max_tool_calls: msgspec.Raw = ABSENT
    moderation: msgspec.Raw = ABSENT
    parallel_tool_calls: bool | None = None
    previous_response_id: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    prompt_cache_options: msgspec.Raw = ABSENT
    prompt_cache_retention: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    text: TextOptions | None = None
    tool_choice: msgspec.Raw = ABSENT
    tools: list[FunctionTool] | None = None
    top_logprobs: msgspec.Raw = ABSENT
    truncation: msgspec.Raw = ABSENT


UNSUPPORTED: Final = Unsupported(
    {
        "previous_response_id": (),
        "conversation": (),
        "background": (False,),
        "background_options": (),
        "max_tool_calls": (),
        "reasoning": ({}, {"effort": None, "summary": None}),
        "include": ([],),
        "top_logprobs": (0,),
        "prompt": (),
        "image": (),
        "access_programs": (),
        "moderation": (),
        "context_management": ([],),
        "truncation": ("disabled",),
        "service_tier": ("auto", "default"),
        "prompt_cache_options": ({}, {"mode": "implicit"}),
        "prompt_cache_retention": ("in_memory",),
    }
)

# What an answer says of a text changes nothing when the answer comes back.
_texts: Final = Texts(
    frozenset({"input_text", "output_text"}),
    Unsupported({"prompt_cache_breakpoint": ()}),
    frozenset({"function_call", "function_call_output", "reasoning", "reasoning_text"}),
)

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_decoder: Final = msgspec.json.Decoder(IncomingResponse)


class ResponsesDialect:
    """OpenAI's responses."""

    style: ClassVar[Style] = OPENAI

    def parse(self, body: bytes) -> ParsedRequest:
        limits = DEFAULT_LIMITS
        try:
            incoming = _decoder.decode(body)
            checks.refuse_unsupported(UNSUPPORTED, incoming)
            messages = _messages(incoming, limits)
            chosen = _chosen(incoming)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            raise _texts.refusal(body, fault, limits.depth) from None
        return ParsedRequest(
            model=checks.checked_model(incoming.model, limits),
            messages=messages,
            stream=_stream(incoming),
            include_usage=False,
            temperature=checks.checked_temperature(incoming.temperature),
            top_p=checks.checked_top_p(incoming.top_p),
            max_tokens=checks.checked_max_tokens("max_output_tokens", incoming.max_output_tokens),
            stop=(),
            seed=None,
            user=checks.checked_label("user", incoming.user, limits)
            or checks.checked_label("safety_identifier", incoming.safety_identifier, limits),
            param="input",
            echo=_echo(incoming),
            extras=tools.with_tools(_extras(incoming.text), chosen),
            one_call=chosen.one_call,
            calls=chosen.calls,
        )

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        return whole_read_response(opening, text, ending)

    def stream(self, opening: Opening) -> ResponseEncoder:
        return ResponseEncoder(opening)

    def read_stream(self, opening: Opening) -> ReadResponseEncoder:
        return ReadResponseEncoder(opening)


def _stream(incoming: IncomingResponse) -> bool:
    stream = incoming.stream is True
    options = incoming.stream_options
    if options is not None:
        if not stream:
            raise invalid("stream_options", "it is only allowed when 'stream' is true")
        if options.include_obfuscation:
            name = "stream_options.include_obfuscation"
            raise checks.unsupported(name, f"Parameter '{name}'")
    return stream


def _extras(text: TextOptions | None) -> Extras | None:
    if text is None:
        return None
    if text.verbosity not in (None, "medium"):
        raise checks.unsupported("text.verbosity", "A verbosity other than 'medium'")
    return extras_of(structure=text_structure_of(text.format))


def _messages(incoming: IncomingResponse, limits: RequestLimits) -> tuple[Message, ...]:
    messages = []
    if incoming.instructions:
        messages.append(Message("system", _texts.of("instructions", incoming.instructions)))
    if isinstance(incoming.input, str):
        messages.append(Message("user", _texts.of("input", incoming.input)))
        return tuple(messages)
    checks.checked_length("input", incoming.input, limits)
    for index, item in enumerate(incoming.input):
        path = f"input[{index}]"
        if item.type == "function_call":
            _add_call(messages, path, item)
        elif item.type == "function_call_output":
            messages.append(_output(path, item))
        elif item.type != "reasoning":
            messages.append(_message(path, item))
    tools.checked_results("input", messages)
    return tuple(messages)


def _add_call(messages: list[Message], path: str, item: InputItem) -> None:
    """A call belongs to the assistant's message before it."""
    if item.name is None or item.arguments is None:
        raise missing(f"{path}.{'name' if item.name is None else 'arguments'}")
    call = tools.past_call(path, item.call_id or "", item.name, item.arguments)
    if messages and messages[-1].role == "assistant":
        messages[-1] = replace(messages[-1], calls=(*messages[-1].calls, call))
    else:
        messages.append(Message("assistant", "", (call,)))


def _output(path: str, item: InputItem) -> Message:
    call_id = tools.checked_id(f"{path}.call_id", item.call_id)
    return Message("tool", _texts.of(f"{path}.output", item.output), call_id=call_id)


def _chosen(incoming: IncomingResponse) -> tools.Chosen:
    """What a request wants of tools."""
    functions = []
    for index, tool in enumerate(incoming.tools or ()):
        path = f"tools[{index}]"
        if tool.type != "function":
            raise unsupported(f"{path}.type", f"Tool '{shown(tool.type)}'")
        function = Function(tool.name, tool.description, tool.parameters, tool.strict)
        functions.append((path, function))
    choice = tools.read_choice(incoming.tool_choice)
    return tools.chosen(functions, choice, incoming.parallel_tool_calls)


def _message(path: str, item: InputItem) -> Message:
    if item.type not in (None, "message"):
        raise unsupported_item(path, item.type or "")
    if item.role is None:
        raise missing(f"{path}.role")
    role = _ROLES.get(item.role)
    if role is None:
        reason = f"unknown role '{shown(item.role)}'; use {', '.join(_ROLES)}"
        raise invalid(f"{path}.role", reason)
    return Message(role, _texts.of(f"{path}.content", item.content))


def _echo(incoming: IncomingResponse) -> bytes:
    """The members of a response that repeat its request; none is kept anywhere."""
    members: dict[str, Any] = {
        "instructions": incoming.instructions,
        "max_output_tokens": incoming.max_output_tokens,
        "metadata": _metadata(incoming.metadata or {}),
        "temperature": 1.0 if incoming.temperature is None else incoming.temperature,
        "top_p": 1.0 if incoming.top_p is None else incoming.top_p,
        "user": incoming.user,
        "safety_identifier": incoming.safety_identifier,
        "prompt_cache_key": incoming.prompt_cache_key,
        "parallel_tool_calls": incoming.parallel_tool_calls is not False,
        "tool_choice": _choice(incoming.tool_choice),
        "tools": [
            {**msgspec.to_builtins(tool), "strict": tool.strict is True}
            for tool in incoming.tools or ()
        ],
        "text": _text(incoming.text),
    }
    return one_line(_encode(members))[1:-1]


def _choice(choice: msgspec.Raw) -> str | dict[str, str]:
    """What was chosen; it has been checked."""
    said = tools.read_choice(choice)
    return {"type": "function", "name": said.name} if said.name else said.kind


def _text(text: TextOptions | None) -> dict[str, Any]:
    """What was asked of the text, as an answer repeats it; only a schema has more members."""
    given = text and text.format
    if not given or given.type != "json_schema":
        return {"format": {"type": given.type if given else "text"}}
    members = {"type": given.type, "name": given.name, "schema": given.schema}
    return {"format": members | {"strict": True, "description": given.description}}


def _metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > _MAX_METADATA_PAIRS:
        reason = f"expected at most {_MAX_METADATA_PAIRS} pairs, but got {len(metadata)} instead"
        raise invalid("metadata", reason, "object_above_max_properties")
    for name, value in metadata.items():
        bounded("metadata", name, _MAX_METADATA_KEY_CHARS)
        bounded("metadata", value, _MAX_METADATA_VALUE_CHARS)
    return metadata
