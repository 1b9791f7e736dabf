"""A receiver of events that tests can wait on, and short ways to make requests."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from inference.engines.base import Done, Event, Failed, GenerationRequest, Message, Sampling, Token

WAIT_SECONDS = 60.0


class Sink:
    """Collects what an engine emits."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self._changed = threading.Condition()

    def __call__(self, events: Sequence[Event]) -> None:
        with self._changed:
            self.batches.append(list(events))
            self._changed.notify_all()

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    def of(self, request_id: str) -> list[Event]:
        return [event for event in self.events if event.request_id == request_id]

    def ends(self, request_id: str) -> list[Done | Failed]:
        return [event for event in self.of(request_id) if isinstance(event, Done | Failed)]

    def wait(self, met: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(met, WAIT_SECONDS), self.events

    def end(self, request_id: str) -> Done | Failed:
        """The terminal event, once it is there."""
        self.wait(lambda: bool(self.ends(request_id)))
        return self.ends(request_id)[0]

    def done(self, request_id: str) -> Done:
        end = self.end(request_id)
        assert isinstance(end, Done), end
        return end

    def failed(self, request_id: str) -> Failed:
        end = self.end(request_id)
        assert isinstance(end, Failed), end
        return end

    def text(self, request_id: str) -> str:
        return "".join(event.text for event in self.of(request_id) if isinstance(event, Token))

    def tokens(self, request_id: str) -> int:
        return sum(event.tokens for event in self.of(request_id) if isinstance(event, Token))


def request(
    request_id: str, *, prompt: Sequence[int] = (5, 6, 7), content: str = "hello", **sampling: Any
) -> GenerationRequest:
    """A request; keyword arguments go to its sampling."""
    sampling.setdefault("max_tokens", 8)
    return GenerationRequest(request_id, prompt, (Message("user", content),), Sampling(**sampling))
