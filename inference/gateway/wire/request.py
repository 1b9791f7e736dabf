"""A chat completion request: decoded, bounded, checked."""

from typing import Final

import msgspec

from inference.engines.base import Message
from inference.gateway.wire import checks, tools
from inference.gateway.wire.checks import (
    DEFAULT_LIMITS,
    RequestLimits,
    invalid,
    missing,
    nul,
    unsupported,
)
from inference.gateway.wire.common import ParsedRequest
from inference.gateway.wire.diagnose import refusal_of, shown
from inference.gateway.wire.extras import chat_extras
from inference.gateway.wire.schema import (
    UNSUPPORTED_MESSAGE_FIELDS,
    UNSUPPORTED_PARAMETERS,
    UNSUPPORTED_PART_FIELDS,
    UNSUPPORTED_PART_TYPES,
    UNSUPPORTED_ROLES,
    IncomingMessage,
    IncomingRequest,
    Part,
)
from portal.core.errors import Invalid

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_decoder: Final = msgspec.json.Decoder(IncomingRequest)


def parse_chat_request(body: bytes, *, limits: RequestLimits = DEFAULT_LIMITS) -> ParsedRequest:
    """The request in ``body``.

    Roles come out as system, user, assistant or tool; a message's parts are joined by newlines.

    Raises:
        Invalid: with ``param`` and ``code`` as OpenAI names them.
    """
    try:
        incoming = _decoder.decode(body)
        checks.refuse_unsupported(UNSUPPORTED_PARAMETERS, incoming)
        # A NUL reaches text only through this escape; most bodies need no closer look.
        messages = _messages(incoming.messages, limits, may_hold_nul=b"\\u0000" in body)
        chosen = tools.of_chat(incoming.tools, incoming.tool_choice, incoming.parallel_tool_calls)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise refusal_of(body, fault, limits.depth) from None
    stream = incoming.stream is True
    return ParsedRequest(
        model=checks.checked_model(incoming.model, limits),
        messages=messages,
        stream=stream,
        include_usage=checks.checked_options(incoming.stream_options, stream=stream),
        temperature=checks.checked_temperature(incoming.temperature),
        top_p=checks.checked_top_p(incoming.top_p),
        max_tokens=_max_tokens(incoming.max_tokens, incoming.max_completion_tokens),
        stop=checks.checked_stop(incoming.stop, limits),
        seed=checks.checked_seed(incoming.seed),
        # ``safety_identifier`` is the newer name of the same label.
        user=checks.checked_label("user", incoming.user, limits)
        or checks.checked_label("safety_identifier", incoming.safety_identifier, limits),
        extras=tools.with_tools(chat_extras(incoming), chosen),
        one_call=chosen.one_call,
        calls=chosen.calls,
    )


def _messages(
    incoming: list[IncomingMessage], limits: RequestLimits, *, may_hold_nul: bool
) -> tuple[Message, ...]:
    checks.checked_length("messages", incoming, limits)
    messages = []
    tooled = False
    for index, message in enumerate(incoming):
        role = _ROLES.get(message.role)
        if role is None:
            raise _refused_role(index, message.role)
        field = UNSUPPORTED_MESSAGE_FIELDS.first(message)
        # Of a result the name is known by its call.
        if field is not None and (role, field) != ("tool", "name"):
            raise unsupported(f"messages[{index}].{field}", f"Message field '{field}'")
        content = message.content
        path = f"messages[{index}].content"
        if message.tool_calls and content is None:
            content = ""
        text = content if isinstance(content, str) else _joined(path, content)
        if may_hold_nul and "\0" in text:
            raise nul(path)
        if role == "tool" or message.tool_calls or message.tool_call_id is not None:
            tooled = True
            messages.append(_with_tools(f"messages[{index}]", role, text, message))
        else:
            messages.append(Message(role, text))
    if tooled:
        tools.checked_results("messages", messages)
    return tuple(messages)


def _with_tools(path: str, role: str, text: str, message: IncomingMessage) -> Message:
    """A message that calls tools, or holds the result of a call."""
    if role == "tool":
        if message.tool_calls:
            raise invalid(f"{path}.tool_calls", "only an assistant's message calls tools")
        call_id = tools.checked_id(f"{path}.tool_call_id", message.tool_call_id)
        return Message(role, text, call_id=call_id)
    if message.tool_call_id is not None:
        raise invalid(f"{path}.tool_call_id", "only a message with the role 'tool' has one")
    if role != "assistant":
        raise invalid(f"{path}.tool_calls", "only an assistant's message calls tools")
    return Message(role, text, tools.past_calls(f"{path}.tool_calls", message.tool_calls or ()))


def _joined(path: str, parts: list[Part] | None) -> str:
    if parts is None:
        raise missing(path)
    if not parts:
        raise invalid(path, "at least one content part is needed", "empty_array")
    return "\n".join(_text(f"{path}[{i}]", part) for i, part in enumerate(parts))


def _text(path: str, part: Part) -> str:
    if part.type in UNSUPPORTED_PART_TYPES:
        raise unsupported(f"{path}.type", f"Content part '{part.type}'")
    if part.type != "text":
        raise invalid(f"{path}.type", f"unknown content part '{shown(part.type)}'")
    field = UNSUPPORTED_PART_FIELDS.first(part)
    if field is not None:
        raise unsupported(f"{path}.{field}", f"Content part field '{field}'")
    if part.text is None:
        raise missing(f"{path}.text")
    return part.text


def _max_tokens(old: int | None, new: int | None) -> int | None:
    checks.checked_max_tokens("max_tokens", old)
    checks.checked_max_tokens("max_completion_tokens", new)
    if old is None or new is None:
        return old if new is None else new
    if old != new:
        raise invalid("max_tokens", "it differs from 'max_completion_tokens': send one of them")
    return new


def _refused_role(index: int, role: str) -> Invalid:
    param = f"messages[{index}].role"
    if role in UNSUPPORTED_ROLES:
        return unsupported(param, f"Role '{role}'")
    return invalid(param, f"unknown role '{shown(role)}'; use {', '.join(_ROLES)}")
