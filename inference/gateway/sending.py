"""What was sent on one request."""

import time
from collections.abc import Awaitable, MutableMapping, Sequence
from typing import Any

from inference.gateway.answers import EVENT_STREAM
from inference.gateway.requests import Send


class Sending:
    """ASGI's ``send``, which notes when the head left, with which status, and whether to a stream.

    Attributes:
        status: 0 until the head has been sent.
        head_at: when that was, by ``time.perf_counter``.
        model: of the catalogue, once a generation of it was admitted; else empty.
    """

    __slots__ = ("_send", "head_at", "model", "status", "stream")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.head_at = 0.0
        self.stream = False
        self.model = ""

    def __call__(self, message: MutableMapping[str, Any]) -> Awaitable[None]:
        if not self.status and message["type"] == "http.response.start":
            self.status = message["status"]
            self.head_at = time.perf_counter()
            headers: Sequence[Any] = message.get("headers") or ()
            self.stream = bool(headers) and headers[0][1] is EVENT_STREAM
        return self._send(message)
