"""A receiver of webhooks on the loopback: keeps what it was sent, answers as it is told."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class Received:
    """One request; names of headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(slots=True)
class Receiver:
    """Answers with ``statuses`` in turn, then with 204; while ``hold`` is set it answers nothing.

    Attributes:
        raw: bytes to write in the place of an answer.
    """

    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    free: threading.Event = field(default_factory=threading.Event)
    arrived: Callable[[Received], object] = lambda _received: None
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        receiver = self
        self.free.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.serve(self)

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.free.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_port)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def hold(self) -> None:
        """Takes requests from now on and answers none, until ``free`` is set."""
        self.free.clear()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        names = {name.lower(): value for name, value in handler.headers.items()}
        request = Received(handler.path, names, handler.rfile.read(length))
        self.received.append(request)
        self.arrived(request)
        self.free.wait()
        try:
            if self.raw is not None:
                handler.wfile.write(self.raw)
                return
            handler.send_response(self.statuses.pop(0) if self.statuses else 204)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
        except OSError:
            # The sender has gone away.
            return

    def wait(self, count: int, within: float = 20.0) -> list[Received]:
        """What was received, once it is so many."""
        eventually(
            lambda: len(self.received) >= count,
            within=within,
            what=lambda: f"{count} webhooks; there are {len(self.received)}",
        )
        return self.received
