"""An arena for faults: real gateways and workers, callers that wait, and the books afterwards."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import dict_row

from inference.models.jobs import JobState
from inference.sweeper import Sweeper
from tests import factories, live
from tests.factories import Organisation, unique
from tests.live import Deployed, Program, Programs, Web
from tests.servers import SessionServers
from tests.waiting import eventually

# Short, so that what is lost is missed soon.
PACE: Final = {"LEASE_SECONDS": "2", "HEARTBEAT_SECONDS": "0.3", "DRAIN_SECONDS": "15"}
PATIENCE: Final = 30.0
TERMINAL: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD)


class Sweeping:
    """What beat and an io worker do in a whole installation: a round of the sweeper, often."""

    def __init__(self, servers: SessionServers) -> None:
        self._servers = servers
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        url, broker = self._servers.url("gateway"), self._servers.valkey.url()
        sweeper = Sweeper(url, broker, max_attempts=3)
        while not self._stopped.wait(0.25):
            try:
                sweeper.sweep()
            except psycopg.OperationalError:
                # The database is being restarted: so would a task fail, and come again.
                continue
        sweeper.close()


@dataclass(slots=True)
class Call:
    """What one caller has got so far."""

    stream: bool
    status: int = 0
    code: str = ""
    text: str = ""
    finished: bool = False
    broken: str = ""
    seconds: float = 0.0
    begun: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def tokens(self) -> int:
        """The fake engine says a word a token."""
        return len(self.text.split())

    @property
    def answered(self) -> bool:
        """Whether the caller has its whole answer."""
        return self.status == 200 and self.finished


class Callers:
    """Callers on threads of their own; each call ends in an answer, an error or a cut."""

    def __init__(self, url: str, token: str, model: str) -> None:
        self._pool = ThreadPoolExecutor(200)
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, limits=limits
        )
        self._model = model
        self._futures: list[Future[None]] = []

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._client.close()

    def start(self, count: int = 1, *, stream: bool, max_tokens: int) -> list[Call]:
        """Begins calls; they go on by themselves."""
        calls = [Call(stream) for _ in range(count)]
        for call in calls:
            self._futures.append(self._pool.submit(self._run, call, max_tokens))
        return calls

    def wait(self, within: float = PATIENCE) -> None:
        """Returns once every call has ended; none may hang."""
        deadline = time.monotonic() + within
        for future in self._futures:
            future.result(timeout=max(0.01, deadline - time.monotonic()))
        self._futures.clear()

    def _run(self, call: Call, max_tokens: int) -> None:
        begun = time.monotonic()
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "go"}],
            "max_tokens": max_tokens,
            "stream": call.stream,
        }
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                call.status = response.status_code
                if call.stream and response.status_code == 200:
                    self._read_events(call, response)
                else:
                    self._read_whole(call, response)
        except httpx.HTTPError as fault:
            call.broken = repr(fault)
        call.seconds = time.monotonic() - begun
        call.begun.set()

    @staticmethod
    def _read_whole(call: Call, response: httpx.Response) -> None:
        body = json.loads(response.read())
        if call.status == 200:
            call.text = body["choices"][0]["message"]["content"]
            call.finished = True
        else:
            call.code = body["error"]["code"]

    @staticmethod
    def _read_events(call: Call, response: httpx.Response) -> None:
        for line in response.iter_lines():
            if call.closing.is_set():
                return
            if not line:
                continue
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                call.finished = True
                return
            event = json.loads(data)
            if "error" in event:
                call.code = event["error"]["code"]
                return
            call.text += event["choices"][0]["delta"].get("content") or ""
            if call.text:
                call.begun.set()


@dataclass(slots=True)
class Arena:
    """A tenant, a deployment of the fake engine, and the processes that serve it."""

    servers: SessionServers
    programs: Programs
    gateway: Web
    deployed: Deployed
    tenant: Organisation
    token: str
    opened: list[Callers] = field(default_factory=list)

    def worker(self, **extra: str) -> Program:
        """A worker of this deployment, ready."""
        before = self._ready()
        program = self.programs.worker(self.deployed, **{**PACE, **extra})

        def ready() -> bool:
            assert program.alive, program.tail()
            return self._ready() > before

        eventually(ready, within=60, every=0.05, what=lambda: f"ready\n{program.tail()}")
        return program

    def _ready(self) -> int:
        (row,) = self.rows(
            "SELECT count(DISTINCT w.id) AS n FROM inference_worker w "
            "JOIN inference_deployment d ON d.id = w.deployment_id "
            "WHERE d.name = %s AND w.state = 'ready'",
            self.deployed.deployment,
        )
        return int(row["n"])

    def callers(self, gateway: Web | None = None) -> Callers:
        made = Callers((gateway or self.gateway).url, self.token, self.deployed.model)
        self.opened.append(made)
        return made

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows as a superuser sees them, over a connection of their own."""
        with psycopg.connect(self.servers.url("superuser"), autocommit=True) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(query, parameters).fetchall()

    def jobs(self) -> list[dict[str, Any]]:
        """This tenant's jobs in order of admission."""
        return self.rows(
            "SELECT * FROM inference_job WHERE tenant_id = %s ORDER BY id", self.tenant.id
        )

    def in_state(self, *states: JobState) -> int:
        return sum(job["state"] in states for job in self.jobs())

    def balance(self, within: float = PATIENCE) -> list[dict[str, Any]]:
        """Waits until every job has ended, checks the books, and returns the jobs.

        One terminal state and one audit outcome each, the ledger equal to the watermark, and
        nothing reserved any more.
        """
        eventually(
            lambda: all(job["state"] in TERMINAL for job in self.jobs()),
            within=within,
            every=0.05,
            what=lambda: f"all jobs have ended: {[j['state'] for j in self.jobs()]}",
        )
        jobs = self.jobs()
        charged = self._charges()
        outcomes = self._outcomes([job["id"] for job in jobs])
        for job in jobs:
            owed = job["watermark"] > 0 or job["state"] == JobState.SUCCEEDED
            due = [(job["prompt_tokens"], job["watermark"])] if owed else []
            assert charged.get(job["id"], []) == due, job
            assert outcomes.get(str(job["id"])) == 1, job
        (window,) = self.rows(
            "SELECT * FROM tenants_quotawindow WHERE tenant_id = %s", self.tenant.id
        )
        assert {
            n: v for n, v in window.items() if (n.endswith("_held") or n == "active") and v
        } == {}
        assert window["tokens_total_used"] == sum(p + c for ((p, c),) in charged.values())
        return jobs

    def _charges(self) -> dict[UUID, list[tuple[int, int]]]:
        charged: dict[UUID, list[tuple[int, int]]] = {}
        for row in self.rows(
            "SELECT job_id, prompt_tokens, completion_tokens FROM tenants_ledgerentry "
            "WHERE tenant_id = %s",
            self.tenant.id,
        ):
            entry = (row["prompt_tokens"], row["completion_tokens"])
            charged.setdefault(row["job_id"], []).append(entry)
        return charged

    def _outcomes(self, job_ids: Sequence[UUID]) -> dict[str, int]:
        rows = self.rows(
            "SELECT object_id, count(*) AS n FROM audit_event WHERE object_id = ANY(%s) "
            "AND outcome IN ('success', 'failure') GROUP BY object_id",
            [str(job_id) for job_id in job_ids],
        )
        return {row["object_id"]: row["n"] for row in rows}


def make_arena(
    servers: SessionServers, programs: Programs, gateway: Web, options: dict[str, Any]
) -> Arena:
    """An arena with a fresh tenant and deployment; no worker runs yet."""
    tenant = factories.organisation("arena")
    deployed = live.deploy(servers, unique("arena"), options=options)
    token = factories.api_key(tenant).token
    return Arena(servers, programs, gateway, deployed, tenant, token)
