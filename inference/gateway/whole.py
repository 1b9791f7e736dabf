"""Answering in one piece."""

from inference.gateway.answers import Reply, error_of, interrupted
from inference.gateway.waiting import Waiter
from inference.models.jobs import JobState
from inference.returns import End


async def answer_whole(waiter: Waiter, reply: Reply) -> bool:
    """Sends a job's answer; whether the job has ended (else it is to be cancelled)."""
    pieces: list[str] = []
    fence = 0
    while True:
        await waiter.wait()
        if waiter.gone:
            return False
        while waiter.events:
            event = waiter.events.popleft()
            if isinstance(event, End):
                if event.state == JobState.SUCCEEDED:
                    await reply.answer("".join(pieces), event)
                else:
                    await reply.refuse(error_of(event, reply.request.param))
                return True
            if event.fence != fence:
                # The job ran again: nobody has seen what its first run said.
                fence, pieces = event.fence, []
            pieces.append(event.text)
        if waiter.broken:
            await reply.refuse(interrupted())
            return False
