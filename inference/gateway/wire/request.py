"""A chat completion request: decoded, bounded, checked."""

from dataclasses import dataclass
from typing import Final

import msgspec

from inference.engines.base import Message
from inference.gateway.wire.diagnose import refusal_of, shown
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

MAX_STOP_SEQUENCES: Final = 4
MAX_OUTPUT_TOKENS: Final = 2**31
_SEEDS: Final = (-(2**63), 2**63 - 1)

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_decoder: Final = msgspec.json.Decoder(IncomingRequest)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may hold; the body's size in bytes is bounded by who reads it."""

    messages: int = 2048
    depth: int = 64
    name_chars: int = 256
    stop_chars: int = 1024


DEFAULT_LIMITS: Final = RequestLimits()


class ChatRequest(msgspec.Struct, frozen=True):
    """What a caller asks of a model. None means that the caller left it to the deployment."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    user: str | None


def parse_chat_request(body: bytes, *, limits: RequestLimits = DEFAULT_LIMITS) -> ChatRequest:
    """The request in ``body``.

    Roles come out as system, user or assistant; a message's text parts are joined by newlines.

    Raises:
        Invalid: with ``param`` and ``code`` as OpenAI names them.
    """
    try:
        incoming = _decoder.decode(body)
        asked = UNSUPPORTED_PARAMETERS.first(incoming)
        if asked is not None:
            raise _unsupported_parameter(asked)
        # A NUL reaches text only through this escape; most bodies need no closer look.
        messages = _messages(incoming.messages, limits, may_hold_nul=b"\\u0000" in body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise refusal_of(body, fault, limits.depth) from None
    stream = incoming.stream is True
    return ChatRequest(
        model=_model(incoming.model, limits),
        messages=messages,
        stream=stream,
        include_usage=_include_usage(incoming, stream=stream),
        temperature=_temperature(incoming.temperature),
        top_p=_top_p(incoming.top_p),
        max_tokens=_max_tokens(incoming.max_tokens, incoming.max_completion_tokens),
        stop=() if incoming.stop is None else _stop(incoming.stop, limits),
        seed=_seed(incoming.seed),
        user=_user(incoming, limits),
    )


def _messages(
    incoming: list[IncomingMessage], limits: RequestLimits, *, may_hold_nul: bool
) -> tuple[Message, ...]:
    if not incoming:
        raise _invalid("messages", "at least one message is needed", "empty_array")
    if len(incoming) > limits.messages:
        reason = f"expected at most {limits.messages} messages, but got {len(incoming)} instead"
        raise _invalid("messages", reason, "array_too_long")
    messages = []
    for index, message in enumerate(incoming):
        role = _ROLES.get(message.role)
        if role is None:
            raise _refused_role(index, message.role)
        field = UNSUPPORTED_MESSAGE_FIELDS.first(message)
        if field is not None:
            raise _unsupported(f"messages[{index}].{field}", f"Message field '{field}'")
        content = message.content
        path = f"messages[{index}].content"
        text = content if isinstance(content, str) else _joined(path, content)
        if may_hold_nul and "\0" in text:
            raise _nul(path)
        messages.append(Message(role, text))
    return tuple(messages)


def _joined(path: str, parts: list[Part] | None) -> str:
    if parts is None:
        raise _missing(path)
    if not parts:
        raise _invalid(path, "at least one content part is needed", "empty_array")
    return "\n".join(_text(f"{path}[{i}]", part) for i, part in enumerate(parts))


def _text(path: str, part: Part) -> str:
    if part.type in UNSUPPORTED_PART_TYPES:
        raise _unsupported(f"{path}.type", f"Content part '{part.type}'")
    if part.type != "text":
        raise _invalid(f"{path}.type", f"unknown content part '{shown(part.type)}'")
    field = UNSUPPORTED_PART_FIELDS.first(part)
    if field is not None:
        raise _unsupported(f"{path}.{field}", f"Content part field '{field}'")
    if part.text is None:
        raise _missing(f"{path}.text")
    return part.text


def _model(model: str, limits: RequestLimits) -> str:
    if not model:
        raise _invalid("model", "name a model", "empty_string")
    return _bounded("model", model, limits.name_chars)


def _include_usage(incoming: IncomingRequest, *, stream: bool) -> bool:
    options = incoming.stream_options
    if options is None:
        return False
    if not stream:
        raise _invalid("stream_options", "it is only allowed when 'stream' is true")
    if options.include_obfuscation:
        name = "stream_options.include_obfuscation"
        raise _unsupported(name, f"Parameter '{name}'")
    return options.include_usage is True


def _temperature(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 2:
        raise _out_of_range("temperature", "decimal", value, 0, 2)
    return value


def _top_p(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        if value == 0:
            raise _invalid("top_p", "expected a value > 0", "decimal_below_min_value")
        raise _out_of_range("top_p", "decimal", value, 0, 1)
    return value


def _max_tokens(old: int | None, new: int | None) -> int | None:
    for name, value in (("max_tokens", old), ("max_completion_tokens", new)):
        if value is not None and not 1 <= value <= MAX_OUTPUT_TOKENS:
            raise _out_of_range(name, "integer", value, 1, MAX_OUTPUT_TOKENS)
    if old is None or new is None:
        return old if new is None else new
    if old != new:
        raise _invalid("max_tokens", "it differs from 'max_completion_tokens': send one of them")
    return new


def _stop(stop: str | list[str], limits: RequestLimits) -> tuple[str, ...]:
    sequences = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(sequences) > MAX_STOP_SEQUENCES:
        reason = f"expected at most {MAX_STOP_SEQUENCES} sequences, but got {len(sequences)}"
        raise _invalid("stop", reason, "array_too_long")
    for sequence in sequences:
        if not sequence:
            raise _invalid("stop", "a stop sequence can't be empty", "empty_string")
        _bounded("stop", sequence, limits.stop_chars)
    return sequences


def _seed(value: int | None) -> int | None:
    if value is not None and not _SEEDS[0] <= value <= _SEEDS[1]:
        raise _out_of_range("seed", "integer", value, *_SEEDS)
    return value


def _user(incoming: IncomingRequest, limits: RequestLimits) -> str | None:
    """``safety_identifier`` is the newer name of the same label."""
    for name, value in (("user", incoming.user), ("safety_identifier", incoming.safety_identifier)):
        if value:
            return _bounded(name, value, limits.name_chars)
    return None


def _bounded(param: str, text: str, limit: int) -> str:
    if len(text) > limit:
        reason = f"expected at most {limit} characters, but got {len(text)} instead"
        raise _invalid(param, reason, "string_above_max_length")
    if "\0" in text:
        raise _nul(param)
    return text


def _invalid(param: str, reason: str, code: str = "invalid_value") -> Invalid:
    return Invalid(f"Invalid '{param}': {reason}.", code=code, param=param)


def _out_of_range(param: str, kind: str, value: float, minimum: float, maximum: float) -> Invalid:
    side, sign, bound = (
        ("below_min", ">=", minimum) if value < minimum else ("above_max", "<=", maximum)
    )
    # An integer may come with thousands of digits.
    got = f"{value}" if abs(value) < 10**30 else "a huge number"
    reason = f"expected a value {sign} {bound}, but got {got} instead"
    return _invalid(param, reason, f"{kind}_{side}_value")


def _missing(param: str) -> Invalid:
    return Invalid(
        f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )


def _nul(param: str) -> Invalid:
    return _invalid(param, "text can't hold NUL characters (\\u0000)", "invalid_unicode")


def _unsupported(param: str, what: str) -> Invalid:
    return Invalid(f"{what} is not supported.", code="unsupported_parameter", param=param)


def _unsupported_parameter(name: str) -> Invalid:
    accepted = [msgspec.json.encode(v).decode() for v in UNSUPPORTED_PARAMETERS.accepted[name]]
    remedy = " or ".join(["leave it out", *(f"send {value}" for value in accepted)])
    return Invalid(
        f"Parameter '{name}' is not supported with this value: {remedy}."
        if accepted
        else f"Parameter '{name}' is not supported: {remedy}.",
        code="unsupported_parameter",
        param=name,
    )


def _refused_role(index: int, role: str) -> Invalid:
    param = f"messages[{index}].role"
    if role in UNSUPPORTED_ROLES:
        return _unsupported(param, f"Role '{role}'")
    return _invalid(param, f"unknown role '{shown(role)}'; use {', '.join(_ROLES)}")
