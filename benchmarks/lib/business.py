"""Business systems on a portal that is being killed: jobs, batches, and a receiver of webhooks."""

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from uuid import UUID, uuid4

import httpx

from benchmarks.lib.witnesses import Told, Witness

_ENDED: Final = ("succeeded", "failed", "cancelled", "dead")
_BATCH_ENDED: Final = ("completed", "failed", "expired", "cancelled")
_LOOK_S: Final = 0.5
_LINES: Final = 12
_TOLERANCE_S: Final = 300.0


@dataclass(slots=True)
class Submitted:
    """What was told of one submission of a job, under one idempotency key.

    Attributes:
        job_ids: what its submissions were answered with; more than one is a fault.
        state: the last that was told.
        answer: its result, once it was read.
    """

    calls_back: bool
    cancelled: bool = False
    job_ids: set[UUID] = field(default_factory=set)
    state: str = ""
    answer: Told | None = None


class Submitter(Witness):
    """Submits jobs, some twice; cancels some; reads the results of the others."""

    def __init__(self, *context: Any, receiver: str) -> None:
        super().__init__(*context)
        self._receiver = receiver
        self.submitted: list[Submitted] = []

    def act(self, http: httpx.Client) -> None:
        calls_back = self.chance.random() < 0.7
        job = Submitted(calls_back)
        body = self.body() | {"priority": self.chance.choice(["interactive", "normal", "batch"])}
        if calls_back:
            body["callback_url"] = self._receiver
        self.submitted.append(job)
        key = {"Idempotency-Key": uuid4().hex}
        for _ in range(self.chance.choice([1, 1, 2])):
            told = insist(lambda: http.post(self.url("/api/v1/jobs"), json=body, headers=key))
            if told.status_code != 202:
                raise SystemExit(f"A job was refused: {told.text}")
            job.job_ids.add(UUID(told.json()["id"]))
        path = f"/api/v1/jobs/{next(iter(job.job_ids))}"
        if self.chance.random() < 0.25:
            insist(lambda: http.post(self.url(f"{path}/cancel")))
            job.cancelled = True
        while job.state not in _ENDED:
            job.state = insist(lambda: http.get(self.url(path))).json()["state"]
            time.sleep(_LOOK_S)
        if job.state == "succeeded":
            answer = insist(lambda: http.get(self.url(f"{path}/result")))
            job.answer = Told("job", answer.status_code, finished=answer.status_code == 200)
            job.answer.take(answer.json())


@dataclass(slots=True)
class Batched:
    """One batch as it was told: the lines sent, and what came back for each."""

    lines: list[str]
    state: str = ""
    results: list[tuple[str, Told]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Batcher(Witness):
    """Uploads files of calls, and fetches what became of each line."""

    def __init__(self, *context: Any) -> None:
        super().__init__(*context)
        self.batches: list[Batched] = []

    def act(self, http: httpx.Client) -> None:
        lines = [f"line-{number}" for number in range(_LINES)]
        content = b"\n".join(self._line(name) for name in lines)
        upload = {"file": ("lines.jsonl", content)}
        purpose = {"purpose": "batch"}
        file = insist(lambda: http.post(self.url("/v1/files"), files=upload, data=purpose)).json()
        wanted = {
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        batch = insist(lambda: http.post(self.url("/v1/batches"), json=wanted)).json()
        batched = Batched(lines)
        self.batches.append(batched)
        path = f"/v1/batches/{batch['id']}"
        while batched.state not in _BATCH_ENDED:
            batch = insist(lambda: http.get(self.url(path))).json()
            batched.state = batch["status"]
            time.sleep(_LOOK_S)
        self._read(http, batched, batch)

    def _line(self, name: str) -> bytes:
        call = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions"}
        return json.dumps(call | {"body": self.body()}).encode()

    def _read(self, http: httpx.Client, batched: Batched, batch: dict[str, Any]) -> None:
        for part in ("output_file_id", "error_file_id"):
            if batch.get(part) is None:
                continue
            path = f"/v1/files/{batch[part]}/content"
            for text in insist(lambda path=path: http.get(self.url(path))).text.splitlines():  # type: ignore[misc]
                line = json.loads(text)
                if part == "error_file_id":
                    batched.errors.append(line["custom_id"])
                    continue
                told = Told("batch", line["response"]["status_code"], finished=True)
                told.take(line["response"]["body"])
                batched.results.append((line["custom_id"], told))


class Receiver:
    """Receives webhooks, at times badly; a context manager.

    Attributes:
        ended: job -> the states it was told of, by deliveries that it has answered with 200.
        forged: deliveries whose signature or time is not right.
        secrets: what they may be signed with.
    """

    def __init__(self, host: str, refuses: Callable[[], bool]) -> None:
        self.ended: dict[UUID, set[str]] = {}
        self.secrets: set[str] = set()
        self.forged = 0
        self._known: set[str] = set()
        self._refuses = refuses
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.take(dict(self.headers.items()), body))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_address[1]}/ended"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """The status to answer with."""
        told = {name.lower(): value for name, value in headers.items()}
        if not self._signed(told, body):
            self.forged += 1
            return 400
        # The first delivery alone: the ones after it come minutes later.
        if told["webhook-id"] not in self._known:
            self._known.add(told["webhook-id"])
            if self._refuses():
                return 503
        event = json.loads(body)
        job = UUID(event["data"]["job_id"])
        self.ended.setdefault(job, set()).add(event["type"].removeprefix("job."))
        return 200

    def _signed(self, headers: dict[str, str], body: bytes) -> bool:
        """As https://www.standardwebhooks.com says, by our own hand."""
        sent_at = headers.get("webhook-timestamp", "0")
        if abs(time.time() - float(sent_at)) > _TOLERANCE_S:
            return False
        signed = f"{headers.get('webhook-id')}.{sent_at}.".encode() + body
        given = {part.removeprefix("v1,") for part in headers["webhook-signature"].split()}
        for secret in self.secrets:
            key = base64.b64decode(secret.removeprefix("whsec_"))
            digest = hmac.new(key, signed, hashlib.sha256).digest()
            if base64.b64encode(digest).decode() in given:
                return True
        return False


def insist(send: Callable[[], httpx.Response], over_after_s: float = 120.0) -> httpx.Response:
    """Asks until something other than a failure of the server comes back.

    Raises:
        TimeoutError: nothing did, for so long.
    """
    deadline = time.monotonic() + over_after_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            answer = send()
            if answer.status_code < 500:
                return answer
        time.sleep(_LOOK_S)
    raise TimeoutError("The portal does not come back.")
