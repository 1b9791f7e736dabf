"""Streaming an answer as server-sent events."""

from inference.gateway.admission import Admitted
from inference.gateway.answers import (
    EVENT_STREAM,
    error_of,
    interrupted,
    limits_of,
    respond_error,
    start,
)
from inference.gateway.calls import Pending
from inference.gateway.requests import Send
from inference.gateway.waiting import Waiter
from inference.gateway.wire import errors
from inference.gateway.wire.request import ChatRequest
from inference.gateway.wire.response import DONE, ChunkEncoder, FinishReason, Usage
from inference.models.jobs import JobState
from inference.returns import End
from portal.core.errors import PortalError


class _Stream:
    """One event stream; its head leaves only with the first event, so a refusal stays a 4xx."""

    def __init__(
        self, send: Send, verdict: Admitted, pending: Pending, request: ChatRequest
    ) -> None:
        self._send = send
        self._verdict = verdict
        self._pending = pending
        self._include_usage = request.include_usage
        self._started = False
        self._encoder = ChunkEncoder(
            completion_id=f"chatcmpl-{verdict.job_id.hex}",
            created=int(pending.arrived_at.timestamp()),
            model=request.model,
            include_usage=request.include_usage,
        )

    async def text(self, text: str) -> None:
        body = await self._opening()
        if text:
            body += self._encoder.content(text)
        if body:
            await self._body(body, more=True)

    async def end(self, end: End) -> None:
        if end.state != JobState.SUCCEEDED:
            await self.error(error_of(end))
            return
        reason: FinishReason = "length" if end.finish_reason == "length" else "stop"
        body = await self._opening() + self._encoder.final(reason)
        if self._include_usage:
            body += self._encoder.usage(Usage(end.prompt_tokens, end.completion_tokens))
        await self._body(body + DONE, more=False)

    async def error(self, error: PortalError) -> None:
        origin = self._pending.origin
        if not self._started:
            await respond_error(self._send, origin, error, limits_of(self._verdict))
            return
        await self._body(errors.error_event(error, origin.request_id), more=False)

    async def _opening(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        extra = [*limits_of(self._verdict), (b"x-accel-buffering", b"no")]
        await start(self._send, self._pending.origin, 200, EVENT_STREAM, extra)
        return self._encoder.first()

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def answer_stream(
    waiter: Waiter,
    verdict: Admitted,
    pending: Pending,
    request: ChatRequest,
    send: Send,
) -> bool:
    """Streams a job's answer; whether the job has ended (else it is to be cancelled)."""
    stream = _Stream(send, verdict, pending, request)
    while True:
        await waiter.wait()
        if waiter.gone:
            return False
        pieces: list[str] = []
        while waiter.events:
            event = waiter.events.popleft()
            if isinstance(event, End):
                if pieces:
                    await stream.text("".join(pieces))
                await stream.end(event)
                return True
            pieces.append(event.text)
        if pieces:
            await stream.text("".join(pieces))
        if waiter.broken:
            await stream.error(interrupted())
            return False
