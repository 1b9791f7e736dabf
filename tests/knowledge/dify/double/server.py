"""The double's server: who may call, which route answers, and what goes wrong on demand."""

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from tests.knowledge.dify.double import apps, console, knowledge
from tests.knowledge.dify.double.http import (
    HTML_404,
    HTML_TYPE,
    Answer,
    Refusal,
    Request,
    no_such_route,
)
from tests.knowledge.dify.double.state import Dataset, Document, Workspace
from tests.knowledge.dify.recorded import body_of, template_of

Kind = Literal[
    "failed", "bad_gateway", "busy", "hang", "drop", "done_then_drop", "html_404", "redirect",
    "nonsense", "endless", "denied", "cut",
]  # fmt: skip
CUT: Final = b""
GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head></html>"


@dataclass
class Fault:
    """What goes wrong with the next calls that match.

    ``drop`` closes the connection before anything is done, ``done_then_drop`` after it is done:
    the answer is lost. ``cut`` closes it in the midst of a stream. ``hang`` answers nothing until
    the double stops.

    Attributes:
        path: a pattern that the path must hold.
        times: how many calls; -1 for all until ``heal``.
        after: so many calls that match go well before.
        retry_after: of ``busy``.
    """

    kind: Kind
    path: str = ""
    method: str = ""
    times: int = 1
    after: int = 0
    retry_after: str = "1"

    def meets(self, request: Request) -> bool:
        return (
            self.times != 0
            and self.method in ("", request.method)
            and re.search(self.path, request.path) is not None
        )


@dataclass(frozen=True)
class Seen:
    """A call that arrived and what it was answered, None if nothing."""

    request: Request
    answer: Answer | None

    @property
    def status(self) -> int:
        return 0 if self.answer is None else self.answer.status

    @property
    def route(self) -> tuple[str, str]:
        return self.request.method, template_of(self.request.path)


class DifyDouble:
    """A Dify on the loopback. Two workspaces; the first has a dataset key already.

    Attributes:
        url: its base URL.
        seen: every call, oldest first.
        without: verbs and patterns of paths that this version does not offer.
        knowledge: what is slow, and what is lost: see ``KnowledgeRoutes``.
        apps: what answers, and how fast: see ``AppRoutes``.
    """

    def __init__(self, *, version: str = "1.16.0", tls: Any = None) -> None:
        self.version = version
        self.console_key = "admin-key-of-the-double"
        self.inner_key = "inner-key-of-the-double"
        self.accounts = {"admin@example.com"}
        self.licence = "none"
        self.without: set[tuple[str, str]] = set()
        self.own = Workspace("admin's Workspace")
        self.other = Workspace("Tenant B")
        self.workspaces = {w.id: w for w in (self.own, self.other)}
        self.knowledge = knowledge.KnowledgeRoutes()
        self.apps = apps.AppRoutes()
        self.seen: list[Seen] = []
        self._console = console.ConsoleRoutes(self.workspaces)
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self.dataset_key: str = console._new_key(self.own.keys, "dataset")["token"]
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._released.set()
        self.apps.gate.set()
        self._server.shutdown()
        self._server.server_close()

    # -- faults, and people who click --------------------------------------------------------

    def fail(self, kind: Kind, **how: Any) -> None:
        """Lets the next calls that match go wrong; see ``Fault``."""
        with self._lock:
            self._faults.append(Fault(kind, **how))

    def heal(self) -> None:
        """Nothing goes wrong from here on."""
        with self._lock:
            self._faults.clear()

    def click(self, change: Callable[[Workspace], object]) -> None:
        """Somebody changes the workspace in Dify's own pages, behind the portal's back."""
        with self._lock:
            change(self.own)

    def dataset(self, name: str) -> Dataset:
        """The knowledge base of a name, as it stands."""
        with self._lock:
            return next(d for d in self.own.datasets.values() if d.name == name)

    def document(self, dataset: str, name: str) -> Document:
        return next(d for d in self.dataset(dataset).documents.values() if d.name == name)

    # -- serving -----------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer | None:
        """What is answered; None closes the connection without an answer."""
        fault = self._fault(request)
        if fault is not None and fault.kind == "hang":
            self._released.wait()
            return None
        with self._lock:
            if fault is None:
                answer: Answer | None = self._routed(request)
            elif fault.kind == "done_then_drop":
                self._routed(request)
                answer = None
            elif fault.kind == "cut":
                answer = _cut(self._routed(request))
            else:
                answer = _wrong(fault)
            self.seen.append(Seen(request, answer))
        return answer

    def _fault(self, request: Request) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if not fault.meets(request):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                return fault
        return None

    def _routed(self, request: Request) -> Answer:
        try:
            if any(m == request.method and re.search(p, request.path) for m, p in self.without):
                raise _not_allowed()
            if request.path == "/console/api/system-features":
                body = body_of("console_system_features")
                body["license"]["status"] = self.licence
                return Answer(200, body)
            if request.path == "/inner/api/enterprise/workspace":
                if request.headers.get("x-inner-api-key") != self.inner_key:
                    raise Refusal(401, "inner_api_unauthorized", "Unauthorized.")
                return console.create_workspace(self.workspaces, self.accounts, request)
            for prefix, routes, owner, found in (
                ("/console/api", console.ROUTES, self._console, self._console_workspace),
                ("/v1", apps.ROUTES, self.apps, self._key_app),
                ("/v1", knowledge.ROUTES, self.knowledge, self._key_workspace),
            ):
                answer = _dispatch(prefix, routes, owner, request, found)
                if answer is not None:
                    return answer
            raise no_such_route()
        except Refusal as refusal:
            return refusal.answer

    def _console_workspace(self, request: Request) -> Workspace:
        found = self.workspaces.get(request.headers.get("x-workspace-id", ""))
        if request.headers.get("authorization") != f"Bearer {self.console_key}" or found is None:
            raise Refusal(401, "unauthorized", "Invalid token.")
        return found

    def _key_workspace(self, request: Request) -> Workspace:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        for workspace in self.workspaces.values():
            if token in {key["token"] for key in workspace.keys}:
                return workspace
        raise Refusal(401, "unauthorized", "Access token is invalid")

    def _key_app(self, request: Request) -> apps.Caller:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        for workspace in self.workspaces.values():
            if token in workspace.gone_keys:
                raise Refusal(403, "forbidden", "The app no longer exists.")
            for app in workspace.apps.values():
                if token in {key["token"] for key in app.keys}:
                    if not app.api_enabled:
                        raise Refusal(403, "forbidden", "The app's API service has been disabled.")
                    return apps.Caller(workspace, app)
        raise Refusal(401, "unauthorized", "Access token is invalid")


def _dispatch(
    prefix: str,
    routes: Any,
    owner: Any,
    request: Request,
    caller_of: Callable[[Request], Any],
) -> Answer | None:
    """The answer of a request's route, None if there is none; a wrong verb is 405.

    Ids that are no UUIDs reach no route.
    """
    if not request.path.startswith(f"{prefix}/"):
        return None
    path = request.path.removeprefix(prefix)
    known = False
    for method, pattern, handler in routes:
        match = re.fullmatch(pattern, path)
        if match is None or not _uuids(pattern, match):
            continue
        known = True
        if method == request.method:
            caller = caller_of(request)
            called: Answer = handler(
                owner, caller, Request(**{**vars(request), "ids": match.groups()})
            )
            return called
    if known:
        raise _not_allowed()
    return None


def _not_allowed() -> Refusal:
    return Refusal(405, "method_not_allowed", "The method is not allowed for the requested URL.")


def _uuids(pattern: str, match: re.Match[str]) -> bool:
    kinds = re.findall(r"\(\[.*?\)", pattern)
    for kind, value in zip(kinds, match.groups(), strict=True):
        if "0-9a-f" in kind:
            try:
                UUID(value)
            except ValueError:
                return False
    return True


def _cut(answer: Answer) -> Answer:
    assert answer.stream is not None
    return replace(answer, stream=itertools.chain(itertools.islice(answer.stream, 3), [CUT]))


def _wrong(fault: Fault) -> Answer | None:
    """The answer of a call that goes wrong; None where there is none."""
    shaped = {"failed": (500, "internal_server_error"), "denied": (403, "forbidden")}
    if fault.kind in shaped:
        status, code = shaped[fault.kind]
        return Answer(status, {"code": code, "message": "secret words of Dify", "status": status})
    if fault.kind == "busy":
        body = {"code": "too_many_requests", "message": "Too many requests.", "status": 429}
        return Answer(429, body, headers={"retry-after": fault.retry_after})
    return {
        "bad_gateway": Answer(502, GATEWAY_PAGE, "text/html", version=False),
        "html_404": Answer(404, HTML_404, HTML_TYPE),
        "redirect": Answer(302, "", headers={"location": "http://127.0.0.1:9/"}),
        "nonsense": Answer(200, '{"surprise": true}'),
        "endless": Answer(200, '"' + "x" * (17 * 1024 * 1024) + '"'),
    }.get(fault.kind)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, double: DifyDouble) -> None:
        self.double = double
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Callers that break off are what tests do."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30
    # Head and body in one packet: apart, the second waits for the first one's acknowledgement.
    wbufsize = 1 << 16

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        headers = {k.lower(): v for k, v in self.headers.items()}
        answer = self.server.double.answer(Request(self.command, parts.path, query, headers, raw))
        if answer is None:
            self.close_connection = True
            return
        try:
            self._write(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _write(self, answer: Answer) -> None:
        content = answer.content if answer.stream is None else b""
        self.send_response(answer.status)
        self.send_header("content-type", answer.media_type)
        if answer.version:
            self.send_header("x-version", self.server.double.version)
            self.send_header("x-env", "PRODUCTION")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.stream is not None:
            self.send_header("transfer-encoding", "chunked")
        elif answer.status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if answer.stream is not None:
            self._write_stream(answer.stream)

    def _write_stream(self, stream: Iterator[bytes]) -> None:
        for part in stream:
            if part is CUT:
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Says nothing."""
