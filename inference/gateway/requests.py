"""From bytes to a call: credentials, body, model and prompt of one request."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from inference.engines.abilities import check_abilities
from inference.engines.base import Structure
from inference.gateway.admission import Ask, Call
from inference.gateway.calls import Generation, Origin, Pending
from inference.gateway.catalogue import Catalogue, Named, Routed, Served
from inference.gateway.inputs import prepare_inputs
from inference.gateway.keys import Credential
from inference.gateway.options import prepare_options
from inference.gateway.parsing.forms import held_calls
from inference.gateway.parsing.reading import Reading
from inference.gateway.routing import Choice
from inference.gateway.structures import check_schema
from inference.gateway.wire import errors
from inference.gateway.wire.common import Dialect, ParsedRequest
from inference.gateway.wire.headers import (
    client_request_id,
    parse_api_key,
    parse_authorization,
    timeout_seconds,
)
from inference.inputs import InputEncoder
from inference.payloads import Extras, Prompt
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid, PortalError
from portal.core.http import Network, client_address
from portal.core.ids import uuid7
from portal.core.redaction import mask
from tenants import api_key_format

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SESSION_COOKIE: Final = "sessionid"

_TIMEOUT: Final = b"x-request-timeout"
_CLIENT_TIMEOUT: Final = b"x-stainless-read-timeout"

# Prompts longer than this are encoded on a thread, so that they hold up nobody else.
_INLINE_CHARS: Final = 20_000


class Arrival(msgspec.Struct, frozen=True):
    """A request's head."""

    origin: Origin
    arrived_at: datetime
    headers: dict[bytes, bytes]
    credential: Credential | None


def arrival(scope: Scope, proxies: tuple[Network, ...]) -> Arrival:
    """Reads a request's head; nothing in it can raise."""
    headers = dict(scope["headers"])
    peer = scope.get("client")
    forwarded = _forwarded_for(scope["headers"]) if proxies else None
    address = client_address(peer[0] if peer else None, forwarded, proxies)
    return Arrival(
        Origin(
            request_id=f"req-{uuid7().hex}",
            client_request_id=client_request_id(_text(headers.get(b"x-request-id"))),
            address=address,
        ),
        datetime.now(UTC),
        headers,
        _credential(headers, address),
    )


def _forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """All of them: a proxy may add a header of its own behind the caller's."""
    return b",".join(value for name, value in headers if name == b"x-forwarded-for").decode(
        "latin-1"
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _credential(headers: dict[bytes, bytes], address: str | None) -> Credential | None:
    token = parse_authorization(_text(headers.get(b"authorization"))) or parse_api_key(
        _text(headers.get(b"x-api-key"))
    )
    parsed = api_key_format.parse(token) if token else None
    if parsed is None:
        return None
    session_key = _session_key(headers.get(b"cookie"))
    return Credential(parsed.public_id, parsed.secret, session_key, address)


def _session_key(cookie: bytes | None) -> str | None:
    if cookie is None:
        return None
    try:
        morsel = SimpleCookie(cookie.decode("latin-1")).get(SESSION_COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None


async def read_body(arrived: Arrival, receive: Receive, limit: int) -> bytes:
    """The request's body.

    Raises:
        Invalid: it is not declared as JSON, or longer than ``limit`` bytes.
        ConnectionResetError: the caller went away while sending it.
    """
    kind = arrived.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise errors.unsupported_media_type()
    declared = arrived.headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 15 or int(declared) > limit):
        raise errors.body_too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the caller went away while sending the body")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise errors.body_too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def pending_generation(
    action: str,
    arrived: Arrival,
    receive: Receive,
    catalogue: Catalogue,
    dialect: Dialect,
    *,
    max_body_bytes: int,
    queue_seconds: float,
) -> tuple[Pending, ParsedRequest | None]:
    """The call of a generation; what is wrong with it travels inside as its refusal.

    A caller without a well-formed key is not worth parsing for: admission tells it so.

    Args:
        queue_seconds: how long it may wait at most, whatever its caller allows.
    """
    if arrived.credential is None:
        return refused(action, arrived, errors.invalid_api_key()), None
    try:
        patience = min(_patience(arrived.headers), queue_seconds)
        body = await read_body(arrived, receive, max_body_bytes)
        request = dialect.parse(body)
        if request.extras is not None:
            request = await check_schema(request)
        named = await _find(catalogue, request.model)
        if isinstance(named, Routed):
            choice, options = await prepare_options(
                named, lambda served: _prepare(request, served, patience)
            )
            call = Call(arrived.credential, choice=choice)
            pending = Pending(action, arrived.origin, call, arrived.arrived_at, options=options)
            return pending, request
        generation, ask = await _prepare(request, named, patience)
        check_abilities(named.engines, generation.prompt.extras)
    except PortalError as refusal:
        return refused(action, arrived, refusal), None
    call = Call(arrived.credential, ask)
    return Pending(action, arrived.origin, call, arrived.arrived_at, generation), request


async def pending_count(
    action: str,
    arrived: Arrival,
    receive: Receive,
    catalogue: Catalogue,
    parse: Callable[[bytes], ParsedRequest],
    *,
    max_body_bytes: int,
) -> tuple[Pending, int]:
    """The call that counts a prompt's tokens, and how many they are; nothing is reserved for it."""
    if arrived.credential is None:
        return refused(action, arrived, errors.invalid_api_key()), 0
    try:
        request = parse(await read_body(arrived, receive, max_body_bytes))
        named = await _find(catalogue, request.model)
        # Of a name that leads to several deployments the first one counts.
        served = next(iter(named.served.values())) if isinstance(named, Routed) else named
        tokens = len(await _encode(request, served))
    except PortalError as refusal:
        return refused(action, arrived, refusal), 0
    if isinstance(named, Routed):
        call = Call(arrived.credential, choice=Choice(named.meaning, 0.0, {}))
    else:
        call = Call(arrived.credential, model_name=served.model_name)
    return Pending(action, arrived.origin, call, arrived.arrived_at), tokens


async def _find(catalogue: Catalogue, name: str) -> Named:
    named = await catalogue.find(name)
    if named is None:
        raise errors.model_not_found(name)
    return named


def refused(action: str, arrived: Arrival, refusal: PortalError) -> Pending:
    """A call that ends at admission, where it is recorded."""
    call = Call(arrived.credential, refusal=refusal)
    return Pending(action, arrived.origin, call, arrived.arrived_at)


async def _prepare(
    request: ParsedRequest, served: Served, patience: float
) -> tuple[Generation, Ask]:
    if request.inputs is not None:
        return await prepare_inputs(request, request.inputs, served, patience)
    return prepared(request, served, await _encode(request, served), patience)


async def _encode(request: ParsedRequest, served: Served) -> list[int]:
    """As ``encoded``; a long prompt does not hold up the event loop."""
    chars = sum(len(m.content) for m in request.messages)
    if request.extras is not None:
        chars += len(request.extras.tools)
    if chars > _INLINE_CHARS:
        return await asyncio.to_thread(encoded, request, served)
    return encoded(request, served)


def prepared(
    request: ParsedRequest, served: Served, ids: list[int], patience: float, *, priority: int = 0
) -> tuple[Generation, Ask]:
    """What a request whose prompt is ``ids`` will run, and what it needs.

    Raises:
        Invalid: prompt and answer don't fit the model's context.
    """
    room = served.context_length - len(ids)
    if room <= 0 or (request.max_tokens is not None and request.max_tokens > room):
        raise _too_long(request, served, len(ids))
    max_tokens = request.max_tokens or min(served.default_max_tokens, room)
    extras = _held(request, served.encoder)
    parameters = _parameters(request, max_tokens)
    reading = reading_of(request, served.encoder, ids)
    if reading is not None:
        # Whoever reads a kept answer goes by it.
        parameters["reading"] = msgspec.to_builtins(reading)
    generation = Generation(
        served,
        Prompt(ids, request.messages, request.stop, extras),
        max_tokens,
        request.stream,
        parameters,
        reading,
    )
    choices = 1 if request.extras is None else request.extras.n
    ask = Ask(
        served.model_id,
        served.model_name,
        served.deployment_id,
        len(ids),
        max_tokens * choices,
        served.prompt_price,
        served.completion_price,
        patience,
        priority,
        reading=reading,
        choices=choices,
    )
    return generation, ask


def _patience(headers: dict[bytes, bytes]) -> float:
    """How long the caller waits, in seconds, where it says so."""
    told = headers.get(_TIMEOUT)
    if told is not None:
        seconds = timeout_seconds(_text(told))
        if seconds is None:
            raise Invalid(
                "X-Request-Timeout must be a number of seconds above 0, such as 30.",
                code="invalid_value",
                param="X-Request-Timeout",
            )
        return seconds
    # OpenAI's clients say it of their own accord, and not always as a number.
    return timeout_seconds(_text(headers.get(_CLIENT_TIMEOUT))) or math.inf


def encoded(request: ParsedRequest, served: Served) -> list[int]:
    """The token ids of a request's prompt.

    Raises:
        Invalid: the model's template refuses it, it can't fit whatever its tokens are, or the
            model generates nothing.
    """
    encoder = served.encoder
    if isinstance(encoder, InputEncoder):
        raise errors.wrong_task(served.model_name, served.task)
    chars = sum(len(m.content) for m in request.messages)
    if chars > served.max_chars:
        # At least this many tokens are needed.
        raise _too_long(request, served, chars * served.context_length // served.max_chars)
    if not encoder.tool_format:
        _refuse_tools(request)
    tools = request.extras.tools if request.extras is not None else ""
    try:
        if request.raw:
            return encoder.encode_raw(request.messages)
        return encoder.encode(request.messages, tools)
    except Invalid as fault:
        raise Invalid(fault.message, code="invalid_value", param=request.param) from None


def _refuse_tools(request: ParsedRequest) -> None:
    """Refuses what a model without tools can't be told.

    Raises:
        Invalid: the request has tools, or their calls or results in its conversation.
    """
    declared = request.extras is not None and bool(request.extras.tools)
    if declared or any(m.calls or m.call_id for m in request.messages):
        param = "tools" if declared else request.param
        raise Invalid(
            f"Tools are not supported by the model '{request.model}': its chat template has no "
            "place for them, or writes calls in a form that is not known here. Leave them out, or "
            "use another model.",
            code="unsupported_parameter",
            param=param,
        )


def reading_of(
    request: ParsedRequest, encoder: PromptEncoder | InputEncoder, ids: list[int]
) -> Reading | None:
    """How the answer to a prompt of those ``ids`` is read; None if it is no more than its text.

    Of several answers each is read so.
    """
    assert isinstance(encoder, PromptEncoder), "what embeds is prepared elsewhere"
    extras = request.extras
    tools = extras is not None and bool(extras.tools)
    if request.raw or not (tools or encoder.reasons):
        return None
    if extras is not None and extras.structure is not None:
        # From its first token on it is what the structure allows: nobody thinks aloud before.
        return None
    forced = request.calls is not None and request.calls.forced
    return Reading(
        encoder.tool_format if tools else "",
        # What is held to calls from its first token on has no thoughts before them.
        "" if forced else _thinking(encoder, ids),
        request.one_call,
    )


def _held(request: ParsedRequest, encoder: PromptEncoder | InputEncoder) -> Extras | None:
    """The request's extras, with what its calls are held to in the model's own form."""
    rule, extras = request.calls, request.extras
    if rule is None or extras is None:
        return extras
    assert isinstance(encoder, PromptEncoder), "what embeds calls nothing"
    assert encoder.call_form is not None, "a model without tools has been refused"
    tools = [(tool.name, tool.schema) for tool in rule.tools]
    calls = held_calls(encoder.call_form, tools, forced=rule.forced, one=request.one_call)
    return replace(extras, structure=Structure("calls", calls=calls))


def _thinking(encoder: PromptEncoder, ids: list[int]) -> Literal["", "maybe", "open"]:
    if not encoder.reasons:
        return ""
    return "open" if encoder.opens_reasoning(ids) else "maybe"


def _too_long(request: ParsedRequest, served: Served, prompt_tokens: int) -> Invalid:
    return errors.context_length_exceeded(
        context=served.context_length,
        prompt_tokens=prompt_tokens,
        max_tokens=request.max_tokens,
        param=request.param,
    )


def _parameters(request: ParsedRequest, max_tokens: int) -> dict[str, Any]:
    """What a job keeps of a request in clear: numbers, and the id of the caller's own user."""
    parameters: dict[str, Any] = {"max_tokens": max_tokens}
    for name in ("temperature", "top_p", "seed", "user"):
        value = getattr(request, name)
        if value is not None:
            # The label is the caller's own words, and is kept in clear.
            parameters[name] = mask(value) if name == "user" else value
    if request.stop:
        parameters["stop_sequences"] = len(request.stop)
    if request.extras is not None:
        parameters |= _extra_parameters(request.extras)
    if request.calls is not None and request.calls.forced:
        parameters["tool_choice"] = "required"
    return parameters


def _extra_parameters(extras: Extras) -> dict[str, Any]:
    """Of a structure only its kind is kept in clear: a schema can tell what is asked about."""
    parameters: dict[str, Any] = {}
    for name in ("top_k", "min_tokens"):
        if getattr(extras, name):
            parameters[name] = getattr(extras, name)
    if extras.n > 1:
        parameters["n"] = extras.n
    if extras.logprobs is not None:
        parameters["logprobs"] = extras.logprobs
    if extras.structure is not None:
        parameters["response_format"] = extras.structure.kind
    return parameters
