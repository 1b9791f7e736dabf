"""The bookkeeping that every engine with its own step loop shares.

One thread owns the model. Other threads only leave requests and cancellations in an inbox; the
loop takes them between steps. All promises of the protocol (one terminal event each, one ``emit``
a step, first come first served, a failure stays with its request) are kept here once.
"""

import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import structlog

from inference.engines.base import (
    Done,
    DuplicateRequest,
    Emit,
    EngineBroken,
    EngineClosed,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Token,
)
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)


def log_failure(fault: BaseException) -> None:
    """Log where an engine failed, without the local variables: they hold prompts and answers."""
    where = "".join(traceback.format_tb(fault.__traceback__))
    log.error("engine.failed", fault=f"{type(fault).__name__}: {fault}", where=where)


class RequestRefused(PortalError):
    """One request cannot be started; the others are not touched."""

    code = "request_refused"
    status = 400


def _prompt_tokens(request: GenerationRequest) -> int:
    embedding = request.embedding
    return len(request.prompt_ids) if embedding is None else sum(embedding.tokens)


class StepEngine(ABC):
    """An engine whose subclass generates step by step on one thread.

    Args:
        slots: requests that may run at once.
        context_length: most tokens of prompt and completion together.
        emit: receives the events of each step.
    """

    def __init__(self, *, slots: int, context_length: int, emit: Emit) -> None:
        self._slots = slots
        self._context_length = context_length
        self._emit = emit
        self._changed = threading.Condition()
        self._inbox: deque[GenerationRequest] = deque()
        self._cancels: set[str] = set()
        self._live: set[str] = set()
        self._accepting = False
        self._closing = False
        self._delivering = False
        self._failure: str | None = None
        self._thread: threading.Thread | None = None
        # Owned by the step thread.
        self._waiting: deque[GenerationRequest] = deque()
        self._running: dict[str, GenerationRequest] = {}
        self._counted: dict[str, int] = {}
        self._generated = 0

    # What a subclass provides; all of it runs on the step thread but _open.

    @abstractmethod
    def _open(self) -> None:
        """Load the model and generate one token."""

    @abstractmethod
    def _start(self, request: GenerationRequest) -> None:
        """Begin a request. A PortalError fails this request alone."""

    @abstractmethod
    def _step(self) -> Sequence[Event]:
        """Advance every running request; returns the events, terminal ones included."""

    @abstractmethod
    def _stop(self, request_id: str) -> None:
        """Forget a running request that was cancelled."""

    @abstractmethod
    def _has_room(self, request: GenerationRequest) -> bool:
        """Whether a free slot can take this request now; it waits first in line otherwise."""

    @abstractmethod
    def _release(self) -> None:
        """Give the model's memory back; nothing runs any more."""

    # The protocol.

    def load(self) -> None:
        """See ``Engine.load``."""
        if self._thread is not None:
            raise EngineClosed("This engine was loaded before; make a new one.")
        self._open()
        self._thread = threading.Thread(target=self._run, name="engine-steps", daemon=True)
        self._accepting = True
        self._thread.start()

    def submit(self, request: GenerationRequest) -> None:
        """See ``Engine.submit``."""
        with self._changed:
            if self._failure is not None:
                raise EngineBroken(f"The engine has failed: {self._failure}.")
            if not self._accepting:
                raise EngineClosed("The engine accepts no requests now.")
            if request.id in self._live:
                raise DuplicateRequest(f"Request {request.id} is already being served.")
            self._live.add(request.id)
            self._inbox.append(request)
            self._changed.notify_all()

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        with self._changed:
            if request_id in self._live:
                self._cancels.add(request_id)
                self._changed.notify_all()

    def drain(self, timeout: float | None = None) -> bool:
        """See ``Engine.drain``."""
        with self._changed:
            self._accepting = False
            return self._changed.wait_for(lambda: not self._live and not self._delivering, timeout)

    def stats(self) -> EngineStats:
        """See ``Engine.stats``."""
        with self._changed:
            running = len(self._running)
            return EngineStats(
                slots=self._slots,
                running=running,
                waiting=len(self._live) - running,
                generated_tokens=self._generated,
                failure=self._failure,
            )

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._changed:
            self._accepting = False
            self._closing = True
            self._cancels |= self._live
            self._changed.notify_all()
        thread, current = self._thread, threading.current_thread()
        if thread is not None and thread is not current:
            thread.join()

    # The loop.

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                events = self._admit()
                if self._running or self._is_busy():
                    stepped = self._step()
                    self._account(stepped)
                    events += stepped
                self._deliver(events + self._cancel_running())
        except Exception as fault:  # noqa: BLE001 - logged, and told to every request
            log_failure(fault)
            self._fail_all(f"{type(fault).__name__}: {fault}")
        finally:
            self._release()

    def _is_busy(self) -> bool:
        """Whether the model needs a step although no request runs, to clean up after one."""
        return False

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._inbox
                    or self._cancels
                    or self._running
                    or self._waiting
                    or self._closing
                    or self._is_busy()
                )
            )
            if self._closing and not self._live and not self._is_busy():
                return False
            self._waiting.extend(self._inbox)
            self._inbox.clear()
            return True

    def _admit(self) -> list[Event]:
        """Start waiting requests in order while slots and room last."""
        events: list[Event] = self._cancel_waiting()
        while self._waiting and len(self._running) < self._slots:
            request = self._waiting[0]
            refusal = self._refusal(request)
            if refusal is None and not self._has_room(request):
                break
            self._waiting.popleft()
            try:
                if refusal is not None:
                    raise refusal
                self._start(request)
            except PortalError as fault:
                events.append(Failed(request.id, fault.error_code, fault.message))
            else:
                self._running[request.id] = request
        return events

    def _refusal(self, request: GenerationRequest) -> RequestRefused | None:
        if request.embedding is not None:
            return RequestRefused("This engine generates text: it makes no embeddings.")
        prompt, most = len(request.prompt_ids), request.sampling.max_tokens
        if prompt == 0 or most < 1:
            return RequestRefused(
                "A request needs a prompt and at least one token to generate.",
                code="invalid_prompt",
            )
        if prompt + most > self._context_length:
            return RequestRefused(
                f"{prompt} prompt tokens and {most} completion tokens exceed the context of "
                f"{self._context_length} tokens.",
                code="context_length_exceeded",
            )
        return None

    def _take_cancels(self, ids: set[str]) -> set[str]:
        with self._changed:
            taken = self._cancels & ids
            self._cancels -= taken
            return taken

    def _cancel_waiting(self) -> list[Event]:
        gone = self._take_cancels({request.id for request in self._waiting})
        if not gone:
            return []
        cancelled = [request for request in self._waiting if request.id in gone]
        self._waiting = deque(r for r in self._waiting if r.id not in gone)
        return [Done(r.id, "cancelled", _prompt_tokens(r), 0) for r in cancelled]

    def _account(self, events: Sequence[Event]) -> None:
        """Count tokens, and retire the requests that ended in this step."""
        for event in events:
            if isinstance(event, Token):
                self._counted[event.request_id] = (
                    self._counted.get(event.request_id, 0) + event.tokens
                )
                self._generated += event.tokens
            else:
                self._running.pop(event.request_id, None)

    def _cancel_running(self) -> list[Event]:
        """End the running requests whose cancellation arrived before or during this step."""
        events: list[Event] = []
        for request_id in self._take_cancels(set(self._running)):
            request = self._running.pop(request_id)
            self._stop(request_id)
            counted = self._counted.get(request_id, 0)
            events.append(Done(request_id, "cancelled", _prompt_tokens(request), counted))
        return events

    def _deliver(self, events: list[Event]) -> None:
        # An id is free before its end is told: who hears of the end may use it again.
        ended = {event.request_id for event in events if not isinstance(event, Token)}
        with self._changed:
            self._live -= ended
            self._cancels &= self._live
            self._delivering = True
        for request_id in ended:
            self._counted.pop(request_id, None)
        try:
            # An owner in another process hears of a failure so, even if nothing ran.
            if events or self._failure is not None:
                self._emit(events)
        finally:
            with self._changed:
                self._delivering = False
                self._changed.notify_all()

    def _fail_all(self, reason: str) -> None:
        with self._changed:
            self._failure = reason
            self._accepting = False
            left = sorted(self._live)
            self._running.clear()
            self._waiting.clear()
            self._inbox.clear()
        self._deliver([Failed(i, "engine_failed", "The engine has failed.") for i in left])
