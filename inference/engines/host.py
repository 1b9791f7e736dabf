"""The child's side of an engine in its own process: ``python -m inference.engines.host FD``.

It serves one engine to the owner of the socket, and ends when the owner closes it or dies.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from inference.engines import create_engine_here
from inference.engines.base import Engine, Event, Failed
from inference.engines.wire import (
    Cancel,
    Events,
    Loaded,
    LoadRefused,
    Start,
    ToChild,
    ToParent,
    frames,
    send,
)
from portal.core.errors import PortalError


class _Host:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._engine: Engine | None = None

    def run(self) -> None:
        decoder = msgspec.msgpack.Decoder(ToChild)
        try:
            for frame in frames(self._sock):
                if not self._handle(decoder.decode(frame)):
                    return
        finally:
            if self._engine is not None:
                self._engine.close()

    def _handle(self, message: ToChild) -> bool:
        if isinstance(message, Start):
            return self._load(message)
        assert self._engine is not None, "Start comes first"
        if isinstance(message, Cancel):
            self._engine.cancel(message.id)
            return True
        try:
            self._engine.submit(message.request)
        except PortalError as fault:
            self._emit([Failed(message.request.id, fault.error_code, fault.message)])
        return True

    def _load(self, start: Start) -> bool:
        try:
            engine = create_engine_here(
                start.name,
                artefact_dir=Path(start.artefact_dir),
                context_length=start.context_length,
                options=start.options,
                emit=self._emit,
            )
            # It may fail, and say so, as soon as it is loaded.
            self._engine = engine
            engine.load()
        except PortalError as fault:
            self._send(LoadRefused(fault.error_code, fault.error_status, fault.message))
            return False
        self._send(Loaded(engine.stats()))
        return True

    def _emit(self, events: Sequence[Event]) -> None:
        assert self._engine is not None
        self._send(Events(list(events), self._engine.stats()))

    def _send(self, message: ToParent) -> None:
        # A dead owner needs no events; run() sees the end of the same socket.
        with self._sending, suppress(OSError):
            send(self._sock, message)


def main() -> None:
    """Serve the socket whose file descriptor is the first argument."""
    # The owner decides when to end, also when a terminal signals the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        _Host(sock).run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries' own exit handlers may wait for threads that are gone.
    os._exit(0)


if __name__ == "__main__":
    main()
