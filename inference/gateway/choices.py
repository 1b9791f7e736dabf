"""Streaming answers of several choices, or with log probabilities."""

from collections.abc import Iterable

from inference.engines.base import TokenLogprob
from inference.gateway.answers import Reply, interrupted
from inference.gateway.parsing.reading import AnswerReader, Reading
from inference.gateway.reads import reason_of
from inference.gateway.stream import EventStream
from inference.gateway.waiting import Waiter
from inference.gateway.wire.choices import ChatChoicesEncoder, ChoicesEncoder
from inference.gateway.wire.common import Ending, FinishReason
from inference.returns import End, Part


class _ReadChoice:
    """One choice as it is read; log probabilities wait for what their text makes known."""

    def __init__(self, reading: Reading, job: str, index: int, encoder: ChatChoicesEncoder) -> None:
        self.reader = AnswerReader(reading, job, index)
        self._index = index
        self._encoder = encoder
        self._told: list[TokenLogprob] = []

    def push(self, part: Part) -> bytes:
        self._told += part.logprobs
        deltas = self.reader.push(part.text)
        if not deltas:
            return b""
        told, self._told = self._told, []
        return self._encoder.deltas(self._index, deltas, told)

    def end(self, reason: FinishReason) -> bytes:
        rest = self._encoder.deltas(self._index, self.reader.finish(), self._told)
        reason = reason_of(reason, called=self.reader.called)
        return rest + self._encoder.ended(self._index, reason)


class ChoiceStream(EventStream):
    """The event stream of such an answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        assert isinstance(self.encoder, ChoicesEncoder), "the dialect has one for such a request"
        self._choices = self.encoder
        self._read: list[_ReadChoice] = []
        if reply.reading is not None:
            assert isinstance(self.encoder, ChatChoicesEncoder), "only chats are read"
            job = reply.opening().job
            self._read = [
                _ReadChoice(reply.reading, job, index, self.encoder)
                for index in sorted(self.encoder.open)
            ]

    async def parts(self, parts: Iterable[Part]) -> None:
        """Pieces of choices, and their ends."""
        body = await self._opening() + b"".join(map(self._part, parts))
        if body:
            await self._body(body, more=True)

    def _part(self, part: Part) -> bytes:
        if not self._read:
            return self._choices.part(part)
        read = self._read[part.choice]
        if part.reason:
            return read.end("length" if part.reason == "length" else "stop")
        return read.push(part)

    async def _rest(self, ending: Ending) -> tuple[bytes, Ending]:
        if not self._read:
            return b"", ending
        rest = [self._read[index].end(ending.reason) for index in sorted(self._choices.open)]
        reasoning = [read.reader.reasoning for read in self._read]
        return b"".join(rest), await self._counted(ending, reasoning)


async def answer_choices(waiter: Waiter, reply: Reply) -> bool:
    """Streams a job's answer; whether the job has ended (else it is to be cancelled)."""
    stream = ChoiceStream(reply)
    while True:
        await waiter.wait()
        if waiter.gone:
            return False
        parts: list[Part] = []
        ended: End | None = None
        while waiter.events and ended is None:
            event = waiter.events.popleft()
            if isinstance(event, End):
                ended = event
            elif isinstance(event, Part):
                parts.append(event)
        if parts:
            await stream.parts(parts)
        if ended is not None:
            await stream.end(ended)
            return True
        if waiter.broken:
            await stream.error(interrupted())
            return False
