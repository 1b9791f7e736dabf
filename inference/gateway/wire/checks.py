"""What the parameters of all APIs may hold, and how a refusal names what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from inference.gateway.wire.schema import StreamOptions, Unsupported
from portal.core.errors import Invalid

MAX_STOP_SEQUENCES: Final = 4
MAX_OUTPUT_TOKENS: Final = 2**31
_SEEDS: Final = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may hold; the body's size in bytes is bounded by who reads it."""

    messages: int = 2048
    depth: int = 64
    name_chars: int = 256
    stop_chars: int = 1024


DEFAULT_LIMITS: Final = RequestLimits()


def checked_model(model: str, limits: RequestLimits) -> str:
    if not model:
        raise invalid("model", "name a model", "empty_string")
    return bounded("model", model, limits.name_chars)


def checked_options(options: StreamOptions | None, *, stream: bool) -> bool:
    """Whether a stream is to end with its usage."""
    if options is None:
        return False
    if not stream:
        raise invalid("stream_options", "it is only allowed when 'stream' is true")
    if options.include_obfuscation:
        name = "stream_options.include_obfuscation"
        raise unsupported(name, f"Parameter '{name}'")
    return options.include_usage is True


def checked_temperature(value: float | None, maximum: int = 2) -> float | None:
    if value is not None and not 0 <= value <= maximum:
        raise out_of_range("temperature", "decimal", value, 0, maximum)
    return value


def checked_top_p(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        if value == 0:
            raise invalid("top_p", "expected a value > 0", "decimal_below_min_value")
        raise out_of_range("top_p", "decimal", value, 0, 1)
    return value


def checked_max_tokens(name: str, value: int | None) -> int | None:
    if value is not None and not 1 <= value <= MAX_OUTPUT_TOKENS:
        raise out_of_range(name, "integer", value, 1, MAX_OUTPUT_TOKENS)
    return value


def checked_stop(
    stop: str | Sequence[str] | None, limits: RequestLimits, name: str = "stop"
) -> tuple[str, ...]:
    if stop is None:
        return ()
    sequences = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(sequences) > MAX_STOP_SEQUENCES:
        reason = f"expected at most {MAX_STOP_SEQUENCES} sequences, but got {len(sequences)}"
        raise invalid(name, reason, "array_too_long")
    for sequence in sequences:
        if not sequence:
            raise invalid(name, "a stop sequence can't be empty", "empty_string")
        bounded(name, sequence, limits.stop_chars)
    return sequences


def checked_seed(value: int | None) -> int | None:
    if value is not None and not _SEEDS[0] <= value <= _SEEDS[1]:
        raise out_of_range("seed", "integer", value, *_SEEDS)
    return value


def checked_label(name: str, value: str | None, limits: RequestLimits) -> str | None:
    """The id of the caller's own user; an empty one is none."""
    return bounded(name, value, limits.name_chars) if value else None


def checked_length(name: str, messages: Sequence[object], limits: RequestLimits) -> None:
    """How many messages a conversation may have."""
    if not messages:
        raise invalid(name, "at least one message is needed", "empty_array")
    if len(messages) > limits.messages:
        reason = f"expected at most {limits.messages} messages, but got {len(messages)} instead"
        raise invalid(name, reason, "array_too_long")


def refuse_unsupported(table: Unsupported, incoming: msgspec.Struct) -> None:
    """Refuses the first parameter that is known, not served, and asks for something.

    Raises:
        msgspec.MsgspecError: a short value is not JSON.
    """
    name = table.first(incoming)
    if name is None:
        return
    accepted = [msgspec.json.encode(v).decode() for v in table.accepted[name]]
    remedy = " or ".join(["leave it out", *(f"send {value}" for value in accepted)])
    raise Invalid(
        f"Parameter '{name}' is not supported with this value: {remedy}."
        if accepted
        else f"Parameter '{name}' is not supported: {remedy}.",
        code="unsupported_parameter",
        param=name,
    )


def bounded(param: str, text: str, limit: int) -> str:
    if len(text) > limit:
        reason = f"expected at most {limit} characters, but got {len(text)} instead"
        raise invalid(param, reason, "string_above_max_length")
    if "\0" in text:
        raise nul(param)
    return text


def invalid(param: str, reason: str, code: str = "invalid_value") -> Invalid:
    return Invalid(f"Invalid '{param}': {reason}.", code=code, param=param)


def out_of_range(param: str, kind: str, value: float, minimum: float, maximum: float) -> Invalid:
    side, sign, bound = (
        ("below_min", ">=", minimum) if value < minimum else ("above_max", "<=", maximum)
    )
    # An integer may come with thousands of digits.
    got = f"{value}" if abs(value) < 10**30 else "a huge number"
    reason = f"expected a value {sign} {bound}, but got {got} instead"
    return invalid(param, reason, f"{kind}_{side}_value")


def missing(param: str) -> Invalid:
    return Invalid(
        f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )


def nul(param: str) -> Invalid:
    return invalid(param, "text can't hold NUL characters (\\u0000)", "invalid_unicode")


def unsupported(param: str, what: str) -> Invalid:
    return Invalid(f"{what} is not supported.", code="unsupported_parameter", param=param)
