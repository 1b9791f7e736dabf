"""Streaming an answer as server-sent events."""

from collections.abc import Iterable

from inference.gateway.answers import Reply, ending_of, error_of, interrupted
from inference.gateway.parsing.deltas import Delta
from inference.gateway.parsing.reading import AnswerReader
from inference.gateway.reads import counted, with_calls
from inference.gateway.waiting import Waiter
from inference.gateway.wire.common import Ending, ReadDialect, StreamEncoder
from inference.models.jobs import JobState
from inference.returns import End
from portal.core.errors import PortalError


class EventStream:
    """One event stream; its head leaves only with the first event, so a refusal stays a 4xx.

    Attributes:
        encoder: writes its events.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._started = False
        opening, reading = reply.opening(), reply.generation.reading
        self._reader: AnswerReader | None = None
        self.encoder: StreamEncoder
        if reading is None:
            self.encoder = reply.dialect.stream(opening)
        else:
            assert isinstance(reply.dialect, ReadDialect), "only their answers are read"
            self._read_encoder = self.encoder = reply.dialect.read_stream(opening)
            self._reader = AnswerReader(reading, opening.job)

    async def text(self, text: str) -> None:
        body = await self._opening()
        if self._reader is not None:
            body += self._deltas(self._reader.push(text))
        elif text:
            body += self.encoder.content(text)
        if body:
            await self._body(body, more=True)

    async def write(self, body: bytes) -> None:
        """Sends events that are written already."""
        await self._body(await self._opening() + body, more=True)

    async def end(self, end: End) -> None:
        request = self._reply.request
        if end.state != JobState.SUCCEEDED:
            await self.error(error_of(end, request.param))
            return
        body, ending = await self._opening(), ending_of(end, request)
        if self._reader is not None:
            body += self._deltas(self._reader.finish())
            ending = await self._read_ending(self._reader, ending)
        await self._body(body + self.encoder.end(ending), more=False)

    def _deltas(self, deltas: Iterable[Delta]) -> bytes:
        return b"".join(self._read_encoder.delta(delta) for delta in deltas)

    async def _read_ending(self, reader: AnswerReader, ending: Ending) -> Ending:
        ending = with_calls(ending, called=reader.called)
        generation = self._reply.generation
        assert generation.reading is not None
        return await counted(
            generation.reading, generation.served.encoder, ending, reader.reasoning
        )

    async def error(self, error: PortalError) -> None:
        if not self._started:
            await self._reply.refuse(error)
            return
        request_id = self._reply.pending.origin.request_id
        await self._body(self.encoder.error(error, request_id), more=False)

    async def _opening(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        await self._reply.start()
        return self.encoder.first()

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self._reply.send({"type": "http.response.body", "body": body, "more_body": more})


async def answer_stream(waiter: Waiter, reply: Reply) -> bool:
    """Streams a job's answer; whether the job has ended (else it is to be cancelled)."""
    stream = EventStream(reply)
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
