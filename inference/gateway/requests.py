"""From bytes to a call: credentials, body, model and prompt of one request."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

import msgspec

from inference.gateway.admission import Ask, Call, Credential
from inference.gateway.calls import Generation, Origin, Pending
from inference.gateway.catalogue import Catalogue, Routed, Served
from inference.gateway.options import prepare_options
from inference.gateway.wire import errors
from inference.gateway.wire.headers import (
    client_request_id,
    parse_authorization,
    timeout_seconds,
)
from inference.gateway.wire.request import ChatRequest, parse_chat_request
from inference.payloads import Prompt
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
    token = parse_authorization(_text(headers.get(b"authorization")))
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


async def pending_chat(
    action: str,
    arrived: Arrival,
    receive: Receive,
    catalogue: Catalogue,
    *,
    max_body_bytes: int,
    queue_seconds: float,
) -> tuple[Pending, ChatRequest | None]:
    """The call of a chat completion; what is wrong with it travels inside as its refusal.

    A caller without a well-formed key is not worth parsing for: admission tells it so.

    Args:
        queue_seconds: how long it may wait at most, whatever its caller allows.
    """
    if arrived.credential is None:
        return refused(action, arrived, errors.invalid_api_key()), None
    try:
        patience = min(_patience(arrived.headers), queue_seconds)
        body = await read_body(arrived, receive, max_body_bytes)
        request = parse_chat_request(body)
        named = await catalogue.find(request.model)
        if named is None:
            raise errors.model_not_found(request.model)
        if isinstance(named, Routed):
            choice, options = await prepare_options(
                named, lambda served: _prepare(request, served, patience)
            )
            call = Call(arrived.credential, choice=choice)
            pending = Pending(action, arrived.origin, call, arrived.arrived_at, options=options)
            return pending, request
        generation, ask = await _prepare(request, named, patience)
    except PortalError as refusal:
        return refused(action, arrived, refusal), None
    call = Call(arrived.credential, ask)
    return Pending(action, arrived.origin, call, arrived.arrived_at, generation), request


def refused(action: str, arrived: Arrival, refusal: PortalError) -> Pending:
    """A call that ends at admission, where it is recorded."""
    call = Call(arrived.credential, refusal=refusal)
    return Pending(action, arrived.origin, call, arrived.arrived_at)


async def _prepare(request: ChatRequest, served: Served, patience: float) -> tuple[Generation, Ask]:
    ids = await _encode(request, served)
    context = served.context_length
    if len(ids) >= context:
        raise errors.context_length_exceeded(
            context=context, prompt_tokens=len(ids), max_tokens=request.max_tokens
        )
    room = context - len(ids)
    if request.max_tokens is not None and request.max_tokens > room:
        raise errors.context_length_exceeded(
            context=context, prompt_tokens=len(ids), max_tokens=request.max_tokens
        )
    max_tokens = request.max_tokens or min(served.default_max_tokens, room)
    generation = Generation(
        served,
        Prompt(ids, request.messages, request.stop),
        max_tokens,
        request.stream,
        _parameters(request, max_tokens),
    )
    ask = Ask(
        served.model_id,
        served.model_name,
        served.deployment_id,
        len(ids),
        max_tokens,
        served.prompt_price,
        served.completion_price,
        patience,
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


async def _encode(request: ChatRequest, served: Served) -> list[int]:
    chars = sum(len(m.content) for m in request.messages)
    if chars > served.max_chars:
        # It can't fit whatever its tokens are; at least this many are needed.
        raise errors.context_length_exceeded(
            context=served.context_length,
            prompt_tokens=chars * served.context_length // served.max_chars,
            max_tokens=request.max_tokens,
        )
    try:
        if chars > _INLINE_CHARS:
            return await asyncio.to_thread(served.encoder.encode, request.messages)
        return served.encoder.encode(request.messages)
    except Invalid as fault:
        raise Invalid(fault.message, code="invalid_value", param="messages") from None


def _parameters(request: ChatRequest, max_tokens: int) -> dict[str, Any]:
    """What a job keeps of a request in clear: numbers, and the id of the caller's own user."""
    parameters: dict[str, Any] = {"max_tokens": max_tokens}
    for name in ("temperature", "top_p", "seed", "user"):
        value = getattr(request, name)
        if value is not None:
            # The label is the caller's own words, and is kept in clear.
            parameters[name] = mask(value) if name == "user" else value
    if request.stop:
        parameters["stop_sequences"] = len(request.stop)
    return parameters
