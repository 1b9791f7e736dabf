"""Several choices of one request: an engine request each, told of as one.

The runtime knows a job by one engine id. Here it is one request after another to the engine, and
their events come back joined: texts with the number of their choice, each choice's end, and one
terminal event when the last has ended, or when one could not be served.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from inference.engines.base import (
    Done,
    Emit,
    Engine,
    Event,
    Failed,
    GenerationRequest,
    StopReason,
    Token,
)
from portal.core.errors import PortalError

_MARK: Final = "#"


class ChoiceToken(Token, frozen=True, tag="choice_token", array_like=True):
    """New text of one choice."""

    choice: int = 0


class ChoiceDone(Done, frozen=True, tag="choice_done", array_like=True):
    """One choice has ended as asked, others have not."""

    choice: int = 0


class _Joined(msgspec.Struct):
    """What the choices of a request have come to so far; ``over`` once its end was told."""

    engine: Engine
    left: set[int]
    tokens: int = 0
    cut: bool = False
    over: bool = False


class Choices:
    """Stands between the runtime and its engine; one choice alone passes as it is.

    Args:
        emit: receives what the engine emits, joined.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._joined: dict[str, _Joined] = {}

    def submit(self, engine: Engine, request: GenerationRequest, n: int) -> None:
        """Submits ``n`` requests alike, but for their seeds.

        Raises:
            PortalError: as ``Engine.submit``; none of them runs then.
        """
        if n == 1:
            engine.submit(request)
            return
        self._joined[request.id] = _Joined(engine, set(range(n)))
        for choice in range(n):
            sampling = request.sampling
            if sampling.seed is not None:
                sampling = replace(sampling, seed=sampling.seed + choice)
            try:
                engine.submit(replace(request, id=_name(request.id, choice), sampling=sampling))
            except PortalError:
                self.cancel(engine, request.id)
                self._joined.pop(request.id, None)
                raise

    def cancel(self, engine: Engine, request_id: str) -> None:
        """Cancels a request, whatever is left of its choices."""
        joined = self._joined.get(request_id)
        if joined is None:
            engine.cancel(request_id)
            return
        for choice in tuple(joined.left):
            engine.cancel(_name(request_id, choice))

    def emit(self, events: Sequence[Event]) -> None:
        """Takes the events of one step, on the engine's thread."""
        if not self._joined:
            self._emit(events)
            return
        joined: list[Event] = []
        for event in events:
            request_id, mark, choice = event.request_id.rpartition(_MARK)
            if not mark:
                joined.append(event)
            elif request_id in self._joined:
                self._join(event, request_id, int(choice), joined)
        if joined:
            self._emit(joined)

    def _join(self, event: Event, request_id: str, choice: int, joined: list[Event]) -> None:
        state = self._joined[request_id]
        if isinstance(event, Token):
            if state.over:
                return
            text, tokens, logprobs = event.text, event.tokens, event.logprobs
            joined.append(ChoiceToken(request_id, text, tokens, logprobs, choice))
            return
        state.left.discard(choice)
        if not state.over:
            self._end(event, request_id, choice, state, joined)
        if not state.left:
            del self._joined[request_id]

    def _end(
        self,
        event: Done | Failed,
        request_id: str,
        choice: int,
        state: _Joined,
        joined: list[Event],
    ) -> None:
        """One choice has ended: the others go on, unless it was cancelled or failed."""
        if isinstance(event, Failed):
            state.over = True
            joined.append(replace(event, request_id=request_id))
            self.cancel(state.engine, request_id)
            return
        state.tokens += event.completion_tokens
        if event.reason == "cancelled":
            state.over = True
            joined.append(Done(request_id, "cancelled", event.prompt_tokens, state.tokens))
            return
        state.cut |= event.reason == "length"
        joined.append(
            ChoiceDone(
                request_id, event.reason, event.prompt_tokens, event.completion_tokens, -1, choice
            )
        )
        if not state.left:
            reason: StopReason = "length" if state.cut else "stop"
            joined.append(Done(request_id, reason, event.prompt_tokens, state.tokens))


def _name(request_id: str, choice: int) -> str:
    return f"{request_id}{_MARK}{choice}"
