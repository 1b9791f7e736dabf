"""Streaming an answer as server-sent events."""

from collections.abc import Iterable, Sequence

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
        opening, reading = reply.opening(), reply.reading
        self._reader: AnswerReader | None = None
        self.encoder: StreamEncoder
        if reading is None or reply.request.detailed:
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

    async def end(self, end: End) -> None:
        request = self._reply.request
        if end.state != JobState.SUCCEEDED:
            await self.error(error_of(end, request.param))
            return
        body, ending = await self._opening(), ending_of(end, request)
        rest, ending = await self._rest(ending)
        await self._body(body + rest + self.encoder.end(ending), more=False)

    def _deltas(self, deltas: Iterable[Delta]) -> bytes:
        return b"".join(self._read_encoder.delta(delta) for delta in deltas)

    async def _rest(self, ending: Ending) -> tuple[bytes, Ending]:
        """What the answer's end makes known of it, and the ending with that."""
        if self._reader is None:
            return b"", ending
        rest = self._deltas(self._reader.finish())
        ending = with_calls(ending, called=self._reader.called)
        return rest, await self._counted(ending, [self._reader.reasoning])

    async def _counted(self, ending: Ending, reasoning: Sequence[str]) -> Ending:
        reading, served = self._reply.reading, self._reply.generation.served
        assert reading is not None, "what is read"
        return await counted(reading, served.encoder, ending, reasoning)

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
