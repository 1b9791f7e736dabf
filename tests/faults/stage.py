"""What a fault is played on: a gateway, a worker and a tenant of the test's own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from psycopg.rows import class_row

from inference.models.jobs import JobState
from tests.factories import Organisation
from tests.live import Deployed, Program, Programs, Web
from tests.waiting import eventually

LIVE = (JobState.QUEUED.value, JobState.RUNNING.value)

# Leases this short let a fault be noticed within a test's patience.
IMPATIENT = {"LEASE_SECONDS": "2.0", "HEARTBEAT_SECONDS": "0.3"}


@dataclass(frozen=True, slots=True)
class JobRow:
    """What the database says of a job."""

    id: object
    state: int
    attempts: int
    watermark: int
    prompt_tokens: int
    error_code: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Charge:
    """A ledger entry."""

    job_id: object
    prompt_tokens: int
    completion_tokens: int
    measure: str


class Stream:
    """An answer as it arrives."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self.text = ""
        self.error: dict[str, Any] | None = None
        self.usage: dict[str, Any] | None = None
        self.done = False

    def read(self, pieces: int | None = None) -> "Stream":
        """Reads so many pieces of text, or all there are."""
        read = 0
        for line in self._lines:
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                self.done = True
                continue
            if self._take(json.loads(line.removeprefix("data: "))):
                read += 1
            if read == pieces:
                break
        return self

    def _take(self, event: dict[str, Any]) -> bool:
        self.error = event.get("error") or self.error
        self.usage = event.get("usage") or self.usage
        deltas = [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
        self.text += "".join(deltas)
        return any(deltas)


@dataclass(slots=True)
class Stage:
    """One deployment with a gateway and a worker of its own, and a tenant's key."""

    programs: Programs
    deployed: Deployed
    web: Web
    worker: Program
    organisation: Organisation
    token: str
    superuser: psycopg.Connection

    def replace_worker(self) -> Program:
        """Starts another worker and waits until it is ready."""
        self.worker = self.programs.worker(self.deployed, **IMPATIENT)
        eventually(
            lambda: self.web.serves(self.deployed.deployment),
            within=60,
            every=0.1,
            what=self.worker.tail,
        )
        return self.worker

    @contextmanager
    def stream(self, max_tokens: int = 400, web: Web | None = None) -> Iterator[Stream]:
        """Asks for a streamed answer."""
        body = self.body(max_tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        with self.client(web) as client:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                assert response.status_code == 200, response.read()
                yield Stream(response)

    def client(self, web: Web | None = None) -> httpx.Client:
        """A client of the gateway with the tenant's key."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=(web or self.web).url, headers=headers, timeout=60)

    def body(self, max_tokens: int) -> dict[str, Any]:
        """A request body."""
        return {
            "model": self.deployed.model,
            "messages": [{"role": "user", "content": "tell me of the way"}],
            "max_tokens": max_tokens,
        }

    def jobs(self) -> list[JobRow]:
        """The tenant's jobs in order of admission."""
        with self.superuser.cursor(row_factory=class_row(JobRow)) as cursor:
            return cursor.execute(
                "SELECT id, state, attempts, watermark, prompt_tokens, error_code, finish_reason "
                "FROM inference_job WHERE tenant_id = %s ORDER BY id",
                [self.organisation.id],
            ).fetchall()

    def wait_ended(self, count: int, within: float = 30.0) -> list[JobRow]:
        """Waits until so many jobs have ended and none is live; returns them."""

        def ended() -> bool:
            jobs = self.jobs()
            return len(jobs) == count and all(job.state not in LIVE for job in jobs)

        eventually(ended, within=within, every=0.05, what=lambda: f"all ended: {self.jobs()}")
        return self.jobs()

    def charges(self) -> list[Charge]:
        """The tenant's ledger."""
        with self.superuser.cursor(row_factory=class_row(Charge)) as cursor:
            return cursor.execute(
                "SELECT job_id, prompt_tokens, completion_tokens, measure FROM tenants_ledgerentry "
                "WHERE tenant_id = %s ORDER BY job_id",
                [self.organisation.id],
            ).fetchall()

    def assert_books_balance(self) -> None:
        """One charge at most a job, equal to its watermark; nothing held; every payload gone."""
        charged = {charge.job_id: charge for charge in self.charges()}
        assert len(charged) == len(self.charges())
        for job in self.jobs():
            charge = charged.get(job.id)
            assert (charge.completion_tokens if charge else 0) == job.watermark
        held = self.superuser.execute(
            "SELECT sum(active + tokens_total_held + tokens_day_held + cost_total_held) "
            "FROM tenants_quotawindow WHERE tenant_id = %s",
            [self.organisation.id],
        ).fetchone()
        assert held == (0,)
        payloads = self.superuser.execute(
            "SELECT count(*) FROM inference_jobpayload WHERE tenant_id = %s",
            [self.organisation.id],
        ).fetchone()
        assert payloads == (0,)
