"""Writing answers: heads, whole bodies, and errors in OpenAI's shape."""

from typing import Final

from inference.gateway.admission import Admitted
from inference.gateway.calls import Origin
from inference.gateway.requests import Send
from inference.gateway.wire import errors
from inference.gateway.wire.headers import HeaderPairs, rate_limit_headers, retry_headers
from inference.models.jobs import JobState
from inference.returns import End
from portal.core.errors import Invalid, PortalError, Unavailable

JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


async def start(
    send: Send, origin: Origin, status: int, content_type: bytes, extra: HeaderPairs
) -> None:
    """Sends an answer's head; every answer names its request id."""
    headers = [
        (b"content-type", content_type),
        (b"x-request-id", origin.request_id.encode()),
        (b"cache-control", b"no-store"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def respond(
    send: Send, origin: Origin, status: int, body: bytes, extra: HeaderPairs | None = None
) -> None:
    """Sends a whole JSON answer."""
    length = [(b"content-length", b"%d" % len(body))]
    await start(send, origin, status, JSON, [*length, *(extra or ())])
    await send({"type": "http.response.body", "body": body})


async def respond_error(
    send: Send, origin: Origin, error: PortalError, extra: HeaderPairs | None = None
) -> None:
    """Sends a refusal or failure."""
    body = errors.error_body(error, origin.request_id)
    headers = [*retry_headers(error), *(extra or ())]
    await respond(send, origin, error.error_status, body, headers)


def limits_of(verdict: Admitted) -> HeaderPairs:
    """The rate-limit headers of an admitted call."""
    return rate_limit_headers(requests=verdict.requests, tokens=verdict.tokens)


# Ends that are nobody's fault but pass: a retry by the client's own rules is right.
_PASSING: Final = frozenset({"worker_lost", "queue_timeout", "drained", "broker_lost", "cancelled"})


def error_of(end: End) -> PortalError:
    """What an unsuccessful end means to the caller."""
    if end.error_code in ("context_length_exceeded", "invalid_prompt", "request_refused"):
        return Invalid(end.error_message, code=end.error_code, param="messages")
    if end.error_code in _PASSING or end.state == JobState.DEAD:
        return Unavailable(
            end.error_message or "The generation was interrupted; try again.",
            code=end.error_code or "interrupted",
            retry_after=1,
        )
    return PortalError(
        "The model failed on this request. Name the request id if you report it.",
        code=end.error_code or "server_error",
    )


def interrupted() -> PortalError:
    """The connection to the worker was lost after text had been shown, or the text itself was."""
    return Unavailable(
        "The generation was interrupted and can't be continued; "
        "only what was delivered is charged.",
        code="stream_interrupted",
        retry_after=1,
    )
