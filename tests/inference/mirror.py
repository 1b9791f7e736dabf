"""A mirror as it stands inside a network: Hugging Face's API over HTTP, from a folder."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "org/tiny"
_INFO = re.compile(rf"/api/models/{REPOSITORY}/revision/([^/]+)\Z")
_FILE = re.compile(rf"/{REPOSITORY}/resolve/{COMMIT}/(.+)\Z")


class Mirror:
    """What the mirror has, and what was asked of it.

    ``cut_after`` breaks the next transfer of a weights file off after so many bytes.
    """

    def __init__(self, folder: Path, token: str | None) -> None:
        self.folder = folder
        self.token = token
        self.url = ""
        self.cut_after: int | None = None
        self.ranges = True
        self.redirect_to: str | None = None
        self.lies_about: str | None = None
        self.asked: list[tuple[str, str, str | None]] = []
        self.authorizations: set[str | None] = set()

    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        found = (_FILE.match(path) for method, path, _ in self.asked if method == "GET")
        return {match[1] for match in found if match}

    def info(self) -> dict[str, Any]:
        siblings = []
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(self.folder))
            entry: dict[str, Any] = {"rfilename": name, "size": path.stat().st_size}
            if _is_large(name):
                entry["lfs"] = {
                    "sha256": self.sha256(name),
                    "size": path.stat().st_size,
                    "pointerSize": 130,
                }
            siblings.append(entry)
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings}

    def sha256(self, name: str) -> str:
        if name == self.lies_about:
            return "0" * 64
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        mirror, path = self.mirror, unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        mirror.asked.append((self.command, path, self.headers.get("Range")))
        mirror.authorizations.add(authorization)
        if mirror.token is not None and authorization != f"Bearer {mirror.token}":
            self._send(401, b"{}")
            return
        info, file = _INFO.match(path), _FILE.match(path)
        if info and info[1] in ("main", COMMIT):
            self._send(200, json.dumps(mirror.info()).encode(), "application/json")
        elif file and _is_large(file[1]) and mirror.redirect_to is not None:
            self._send(302, b"", headers={"Location": mirror.redirect_to + path})
        elif file and (mirror.folder / file[1]).is_file():
            self._send_file(file[1])
        else:
            self._send(404, b"{}", headers={"X-Error-Code": "RevisionNotFound"})

    def _send_file(self, name: str) -> None:
        content = (self.mirror.folder / name).read_bytes()
        headers = {
            "ETag": f'"{self.mirror.sha256(name)}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        status, asked = 200, self.headers.get("Range")
        if asked is not None and self.mirror.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[start:]
        self._send(status, content, headers=headers, cut=_is_large(name))

    def _send(
        self,
        status: int,
        content: bytes,
        kind: str = "application/octet-stream",
        *,
        headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        after = self.mirror.cut_after
        if cut and after is not None:
            content = content[:after]
            self.close_connection = True
        self.wfile.write(content)


@contextmanager
def running_mirror(folder: Path, *, token: str | None = None) -> Iterator[Mirror]:
    """A mirror of a folder on a port of this machine."""
    mirror = Mirror(folder, token)
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
