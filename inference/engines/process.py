"""The owner's side of an engine in its own process.

The owner's threads keep running while the engine computes with the interpreter lock held, and a
crash of native code ends the engine's requests, not the worker.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

import inference
from inference.engines.base import (
    DuplicateRequest,
    Emit,
    EngineBroken,
    EngineClosed,
    EngineOptions,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Token,
)
from inference.engines.stepping import log_failure
from inference.engines.wire import (
    Cancel,
    Events,
    Loaded,
    LoadRefused,
    Start,
    Submit,
    ToChild,
    ToParent,
    frames,
    send,
)
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

_EXIT_SECONDS = 10.0
_ROOT = Path(inference.__file__).resolve().parents[1]


class ProcessEngine:
    """Runs a registered engine in a child process; implements ``Engine``."""

    def __init__(
        self,
        name: str,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._start = Start(name, str(artefact_dir.resolve()), context_length, dict(options))
        self._emit = emit
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._live: set[str] = set()
        self._accepting = False
        self._closing = False
        self._delivering = False
        self._failure: str | None = None
        self._stats = EngineStats(slots=0, running=0, waiting=0, generated_tokens=0)
        self._answer: Loaded | LoadRefused | None = None
        self._ended = False
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def load(self) -> None:
        """See ``Engine.load``."""
        if self._process is not None:
            raise EngineClosed("This engine was loaded before; make a new one.")
        self._spawn()
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None or self._ended)
            answer = self._answer
            self._accepting = isinstance(answer, Loaded)
        if isinstance(answer, Loaded):
            return
        self.close()
        if answer is None:
            raise EngineBroken(f"The engine could not be loaded: {self._failure}.")
        raise PortalError(answer.message, code=answer.code, status=answer.status)

    def submit(self, request: GenerationRequest) -> None:
        """See ``Engine.submit``."""
        with self._sending:
            self._accept(request)
            self._send(Submit(request))

    def _accept(self, request: GenerationRequest) -> None:
        with self._changed:
            if self._failure is not None:
                raise EngineBroken(f"The engine has failed: {self._failure}.")
            if not self._accepting:
                raise EngineClosed("The engine accepts no requests now.")
            if request.id in self._live:
                raise DuplicateRequest(f"Request {request.id} is already being served.")
            self._live.add(request.id)

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        # Behind its submission, which may be under way on another thread.
        with self._sending:
            with self._changed:
                known = request_id in self._live
            if known:
                self._send(Cancel(request_id))

    def drain(self, timeout: float | None = None) -> bool:
        """See ``Engine.drain``."""
        with self._changed:
            self._accepting = False
            return self._changed.wait_for(lambda: not self._live and not self._delivering, timeout)

    def stats(self) -> EngineStats:
        """See ``Engine.stats``; what the engine counts is of the last step that had events."""
        with self._changed:
            running = min(self._stats.running, len(self._live))
            waiting = len(self._live) - running
            return replace(self._stats, running=running, waiting=waiting, failure=self._failure)

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._changed:
            self._accepting = False
            self._closing = True
        if self._sock is None or self._process is None or self._reader is None:
            return
        try:
            # The child cancels what still runs, says so, and ends.
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            log.debug("engine.already_gone")
        if self._reader is not threading.current_thread():
            self._reader.join(_EXIT_SECONDS)
            if self._reader.is_alive():
                self._process.kill()
                self._reader.join()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "inference.engines.host", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        self._sock = ours
        self._reader = threading.Thread(target=self._read, name="engine-events", daemon=True)
        self._reader.start()
        with self._sending:
            self._send(self._start)

    def _send(self, message: ToChild) -> None:
        """Send while holding ``_sending``."""
        assert self._sock is not None
        try:
            send(self._sock, message)
        except OSError:
            # The reader sees the end of the same socket, and fails what is left.
            log.debug("engine.already_gone")

    def _read(self) -> None:
        assert self._sock is not None
        decoder = msgspec.msgpack.Decoder(ToParent)
        fault = ""
        try:
            for frame in frames(self._sock):
                self._receive(decoder.decode(frame))
        except Exception as reason:  # noqa: BLE001 - logged, and told to every request
            log_failure(reason)
            fault = f"{type(reason).__name__}: {reason}"
        finally:
            self._end(fault)

    def _receive(self, message: ToParent) -> None:
        if isinstance(message, Events):
            self._deliver(message.events, message.stats)
            return
        with self._changed:
            self._answer = message
            if isinstance(message, Loaded):
                self._stats = message.stats
            self._changed.notify_all()

    def _deliver(self, events: Sequence[Event], stats: EngineStats) -> None:
        # An id is free before its end is told: who hears of the end may use it again.
        ended = {event.request_id for event in events if not isinstance(event, Token)}
        with self._changed:
            self._live -= ended
            self._stats = stats
            self._failure = self._failure or stats.failure
            self._delivering = True
        try:
            if events:
                self._emit(events)
        finally:
            with self._changed:
                self._delivering = False
                self._changed.notify_all()

    def _end(self, fault: str) -> None:
        assert self._sock is not None
        assert self._process is not None
        self._sock.close()
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        with self._changed:
            self._accepting = False
            if fault or not self._closing:
                self._failure = self._failure or fault or f"its process ended with status {code}"
            left = sorted(self._live)
        failed = [Failed(i, "engine_failed", "The engine has failed.") for i in left]
        try:
            self._deliver(failed, self._stats)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
