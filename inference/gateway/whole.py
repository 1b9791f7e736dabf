"""Answering in one piece."""

from inference.gateway.admission import Admitted
from inference.gateway.answers import error_of, interrupted, limits_of, respond, respond_error
from inference.gateway.calls import Pending
from inference.gateway.requests import Send
from inference.gateway.waiting import Waiter
from inference.gateway.wire.request import ChatRequest
from inference.gateway.wire.response import FinishReason, Usage, completion
from inference.models.jobs import JobState
from inference.returns import End


async def answer_whole(
    waiter: Waiter,
    verdict: Admitted,
    pending: Pending,
    request: ChatRequest,
    send: Send,
) -> bool:
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
                await _finish("".join(pieces), event, verdict, pending, request, send)
                return True
            if event.fence != fence:
                # The job ran again: nobody has seen what its first run said.
                fence, pieces = event.fence, []
            pieces.append(event.text)
        if waiter.broken:
            await respond_error(send, pending.origin, interrupted(), limits_of(verdict))
            return False


async def _finish(
    text: str, end: End, verdict: Admitted, pending: Pending, request: ChatRequest, send: Send
) -> None:
    limits = limits_of(verdict)
    if end.state != JobState.SUCCEEDED:
        await respond_error(send, pending.origin, error_of(end), limits)
        return
    reason: FinishReason = "length" if end.finish_reason == "length" else "stop"
    body = completion(
        completion_id=f"chatcmpl-{verdict.job_id.hex}",
        created=int(pending.arrived_at.timestamp()),
        model=request.model,
        text=text,
        finish_reason=reason,
        usage=Usage(end.prompt_tokens, end.completion_tokens),
    )
    await respond(send, pending.origin, 200, body, limits)
