"""Writing answers: heads, whole bodies, and errors in the shape of their API."""

import asyncio
from typing import Final

import msgspec
from msgspec.structs import replace

from inference.choices import decode_choices
from inference.gateway.admission import Admitted
from inference.gateway.calls import Generation, Origin, Pending
from inference.gateway.parsing.reading import Reading
from inference.gateway.reads import INLINE_CHARS, read_answer, read_choices, with_reasoning
from inference.gateway.requests import Send
from inference.gateway.wire.common import Dialect, Ending, Opening, ParsedRequest, Usage
from inference.gateway.wire.headers import HeaderPairs, retry_headers
from inference.gateway.wire.style import Style
from inference.models.jobs import JobState
from inference.returns import End
from portal.core.errors import Invalid, PortalError, Unavailable

JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"

# Longer answers are written on a thread, so that they hold up nobody else: many vectors, mostly.
_WRITTEN_INLINE_CHARS: Final = 100_000


async def start(
    send: Send,
    style: Style,
    origin: Origin,
    status: int,
    content_type: bytes,
    extra: HeaderPairs,
) -> None:
    """Sends an answer's head; every answer names its request id."""
    headers = [
        (b"content-type", content_type),
        (b"x-request-id", origin.request_id.encode()),
        (b"cache-control", b"no-store"),
        *style.head(origin.request_id),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def respond(
    send: Send,
    style: Style,
    origin: Origin,
    status: int,
    body: bytes,
    extra: HeaderPairs | None = None,
) -> None:
    """Sends a whole JSON answer."""
    length = [(b"content-length", b"%d" % len(body))]
    await start(send, style, origin, status, JSON, [*length, *(extra or ())])
    await send({"type": "http.response.body", "body": body})


async def respond_error(
    send: Send,
    style: Style,
    origin: Origin,
    error: PortalError,
    extra: HeaderPairs | None = None,
) -> None:
    """Sends a refusal or failure."""
    body = style.error_body(error, origin.request_id)
    headers = [*retry_headers(error), *(extra or ())]
    await respond(send, style, origin, style.status(error), body, headers)


class Reply(msgspec.Struct, frozen=True):
    """An admitted call and the way back to its caller."""

    send: Send
    verdict: Admitted
    pending: Pending
    request: ParsedRequest
    dialect: Dialect

    async def start(self) -> None:
        """Sends the head of a stream."""
        style = self.dialect.style
        extra = [*self._limits(), (b"x-accel-buffering", b"no")]
        await start(self.send, style, self.pending.origin, 200, EVENT_STREAM, extra)

    async def answer(self, text: str, end: End) -> None:
        """Sends a successful answer in one piece."""
        inline = INLINE_CHARS if self.reading else _WRITTEN_INLINE_CHARS
        if len(text) > inline:
            body = await asyncio.to_thread(self._whole, text, end)
        else:
            body = self._whole(text, end)
        style = self.dialect.style
        await respond(self.send, style, self.pending.origin, 200, body, self._limits())

    def _whole(self, text: str, end: End) -> bytes:
        """The answer as JSON, read as its request asks."""
        ending, opening, reading = ending_of(end, self.request), self.opening(), self.reading
        reasoning: list[str] = []
        if self.request.extras is not None and self.request.detailed:
            answers = decode_choices(text, self.request.extras.n)
            choices = read_choices(reading, opening.job, answers)
            reasoning = [choice.reasoning for choice in choices]
            ending = replace(ending, choices=choices)
        elif reading is not None:
            text, ending = read_answer(reading, opening.job, text, ending)
            reasoning = [ending.reasoning]
        if reading is not None and reading.thinking:
            ending = with_reasoning(ending, self.generation.served.encoder, reasoning)
        return self.dialect.whole(opening, text, ending)

    async def refuse(self, error: PortalError) -> None:
        """Sends a failure in the place of an answer."""
        style = self.dialect.style
        await respond_error(self.send, style, self.pending.origin, error, self._limits())

    @property
    def generation(self) -> Generation:
        """What runs for the call."""
        generation = self.pending.generation
        assert generation is not None, "only generations are admitted"
        return generation

    @property
    def reading(self) -> Reading | None:
        """How the answer is read."""
        return self.generation.reading

    def opening(self) -> Opening:
        """What the answer knows of itself before its first word."""
        ask = self.pending.call.ask
        assert ask is not None, "only what asks for tokens is admitted"
        created = int(self.pending.arrived_at.timestamp())
        return Opening(self.verdict.job_id.hex, created, ask.prompt_tokens, self.request)

    def _limits(self) -> HeaderPairs:
        return self.dialect.style.limits(self.verdict.requests, self.verdict.tokens)


def ending_of(end: End, request: ParsedRequest) -> Ending:
    """How a successful answer ended."""
    return Ending(
        "length" if end.finish_reason == "length" else "stop",
        Usage(end.prompt_tokens, end.completion_tokens),
        request.stop[end.stop] if 0 <= end.stop < len(request.stop) else None,
    )


# Ends that are nobody's fault but pass: a retry by the client's own rules is right.
_PASSING: Final = frozenset({"worker_lost", "queue_timeout", "drained", "broker_lost", "cancelled"})


def error_of(end: End, param: str) -> PortalError:
    """What an unsuccessful end means to the caller; ``param`` holds the prompt."""
    if end.error_code in ("context_length_exceeded", "invalid_prompt", "request_refused"):
        return Invalid(end.error_message, code=end.error_code, param=param)
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
