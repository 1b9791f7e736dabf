"""A source of external knowledge that Dify calls, on the loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

RECORD = {
    "content": "Every employee receives twenty five vacation days.",
    "title": "hr-policy.md",
    "score": 0.92,
    "metadata": {"path": "kb/hr-policy.md", "document_id": "portal-doc-1"},
}


class KnowledgeSource:
    """Answers whoever has the key; without one, everybody.

    Attributes:
        received: the bodies that came, None for an empty one.
        broken: whether it answers 500.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.received: list[Any] = []
        self.broken = False
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                source.received.append(json.loads(raw) if raw else None)
                status, body = source.answer(self.headers.get("authorization", ""), raw)
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/dify"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def answer(self, authorization: str, raw: bytes) -> tuple[int, Any]:
        if self.broken:
            return 500, {}
        if self.key and authorization != f"Bearer {self.key}":
            return 403, {"error_code": 1002, "error_msg": "wrong key"}
        if not raw:
            return 400, {"error_code": 1000, "error_msg": "empty body"}
        return 200, {"records": [RECORD]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
