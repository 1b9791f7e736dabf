"""Streaming answers of several choices, or with log probabilities."""

from inference.gateway.answers import Reply, interrupted
from inference.gateway.stream import EventStream
from inference.gateway.waiting import Waiter
from inference.gateway.wire.choices import ChoicesEncoder
from inference.returns import End, Part


async def answer_choices(waiter: Waiter, reply: Reply) -> bool:
    """Streams a job's answer; whether the job has ended (else it is to be cancelled)."""
    stream = EventStream(reply)
    encoder = stream.encoder
    assert isinstance(encoder, ChoicesEncoder), "the dialect has one for such a request"
    while True:
        await waiter.wait()
        if waiter.gone:
            return False
        written: list[bytes] = []
        ended: End | None = None
        while waiter.events and ended is None:
            event = waiter.events.popleft()
            if isinstance(event, End):
                ended = event
            elif isinstance(event, Part):
                written.append(encoder.part(event))
        if written:
            await stream.write(b"".join(written))
        if ended is not None:
            await stream.end(ended)
            return True
        if waiter.broken:
            await stream.error(interrupted())
            return False
