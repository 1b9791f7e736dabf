"""Money, by a machine that does anything in any order on real PostgreSQL.

After every step the counters equal what the rows say: what is held is what live jobs reserved,
what is used is what the ledger charged, each in the window in which it was admitted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from inference.gateway import store
from inference.gateway.admission import Admitted, Ledger, Refused
from inference.gateway.keys import Credential
from inference.models.jobs import JobState
from inference.worker.claims import Claimed, Progress
from tenants.services import set_quota
from tenants.windows import window_end, window_starts
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.servers import SessionServers

MAX_TOKENS: Final = 40
TERMINAL: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD)

# What every window should hold, from jobs and ledger alone.
EXPECTED: Final = """
SELECT w.*,
       count(j.*) FILTER (WHERE j.state IN (0, 1)) AS live,
       {sums}
  FROM tenants_quotawindow w
  LEFT JOIN inference_job j ON w.quota_id = ANY(j.quota_ids)
  LEFT JOIN tenants_ledgerentry l ON l.job_id = j.id
 WHERE w.tenant_id = ANY(%s)
 GROUP BY w.quota_id
"""


def _sums() -> str:
    parts = []
    for span in ("minute", "day", "month", "total"):
        within = "true" if span == "total" else f"j.admitted_at >= w.{span}_start"
        live = f"({within}) AND j.state IN (0, 1)"
        parts.append(f"count(j.*) FILTER (WHERE {within}) AS requests_{span}_want_used")
        for metric, charged in (
            ("tokens", "l.prompt_tokens + l.completion_tokens"),
            ("cost", "l.cost"),
        ):
            held = f"sum(j.reserved_{metric}) FILTER (WHERE {live})"
            used = f"sum({charged}) FILTER (WHERE {within})"
            parts.append(f"coalesce({held}, 0) AS {metric}_{span}_want_held")
            parts.append(f"coalesce({used}, 0) AS {metric}_{span}_want_used")
    return ", ".join(parts)


BOOKS: Final = EXPECTED.format(sums=_sums())

JOBS: Final = """
SELECT j.id, j.state, j.watermark, j.prompt_tokens,
       (SELECT count(*) FROM tenants_ledgerentry l WHERE l.job_id = j.id) AS charges,
       (SELECT max(l.completion_tokens) FROM tenants_ledgerentry l WHERE l.job_id = j.id)
           AS charged,
       (SELECT count(*) FROM audit_event e WHERE e.object_id = j.id::text
           AND e.outcome IN ('success', 'failure')) AS outcomes,
       EXISTS (SELECT 1 FROM inference_jobpayload p WHERE p.job_id = j.id) AS payload
  FROM inference_job j WHERE j.id = ANY(%s)
"""


@dataclass(slots=True)
class Clock:
    """What admission takes for the time of day."""

    now: datetime

    def ledger(self, **facts: Any) -> Ledger:
        return Ledger(**{**facts, "now": self.now})


@dataclass(slots=True)
class Run:
    """A claimed job, and how many of its tokens were delivered."""

    job: Claimed
    delivered: int = 0


class Money(RuleBasedStateMachine):
    """Two tenants, three keys, one deployment; every hand that touches a job."""

    bench: Bench
    clock: "Clock"
    tenants: list[UUID]
    callers: list[Credential]

    queued = Bundle("queued")
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[UUID] = []

    @initialize()
    def begin(self) -> None:
        # Every example begins in a month of its own, for what was used is never given back.
        self.clock.now = window_end(window_starts(self.clock.now, "UTC")["month"], "month", "UTC")

    @rule(
        target=queued,
        who=st.lists(st.integers(0, 2), min_size=1, max_size=4),
        max_tokens=st.integers(1, MAX_TOKENS),
        stream=st.booleans(),
    )
    def admit(self, who: list[int], max_tokens: int, stream: bool) -> Any:
        calls = [
            self.bench.pending(self.callers[n], max_tokens=max_tokens, stream=stream) for n in who
        ]
        verdicts = self.bench.submit(calls)
        assert all(isinstance(v, Admitted | Refused) for v in verdicts), verdicts
        admitted = [v.job_id for v in verdicts if isinstance(v, Admitted)]
        self.jobs += admitted
        return multiple(*admitted)

    @rule(target=running, limit=st.integers(1, 3))
    def claim(self, limit: int) -> Any:
        return multiple(*(Run(job) for job in self.bench.claim(limit)))

    @rule(run=running, tokens=st.integers(0, MAX_TOKENS))
    def deliver(self, run: Run, tokens: int) -> None:
        if run.job.stream:
            run.delivered = min(run.job.parameters.max_tokens, run.delivered + tokens)
        self.bench.renew(Progress(run.job.id, run.job.fence, run.delivered, None))

    @rule(
        run=consumes(running),
        state=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]),
    )
    def settle(self, run: Run, state: JobState) -> None:
        whole = run.job.parameters.max_tokens if state is JobState.SUCCEEDED else 0
        tokens = run.delivered if run.job.stream else whole
        # A zombie's settlement, if the job was lost meanwhile, must change nothing.
        for ended in self.bench.end(run.job, state, tokens):
            assert ended.completion_tokens == tokens
        assert self.bench.end(run.job, state, tokens) == []

    @rule(run=consumes(running), forgive=st.booleans())
    def put_back(self, run: Run, forgive: bool) -> None:
        if not run.delivered:
            self.bench.release(run.job, forgive=forgive)

    @rule(job_id=queued)
    def cancel(self, job_id: UUID) -> None:
        self.bench.cancel(job_id)

    @rule(run=running)
    def lose_the_worker(self, run: Run) -> None:
        self.bench.lapse(run.job.id)
        self.bench.sweep()

    @rule(job_id=queued)
    def run_out_of_time(self, job_id: UUID) -> None:
        self.bench.expire(job_id)
        self.bench.sweep()

    @rule(by=st.sampled_from([timedelta(minutes=1), timedelta(hours=9), timedelta(days=40)]))
    def pass_time(self, by: timedelta) -> None:
        self.clock.now += by

    @invariant()
    def the_books_balance(self) -> None:
        for row in self.bench.rows(BOOKS, self.tenants):
            wanted = {n.replace("_want", ""): v for n, v in row.items() if "_want_" in n}
            assert {name: row[name] for name in wanted} == wanted
            assert row["active"] == row["live"]

    @invariant()
    def every_job_has_one_end(self) -> None:
        for row in self.bench.rows(JOBS, self.jobs):
            ended = row["state"] in TERMINAL
            assert row["outcomes"] == (1 if ended else 0), row
            assert row["payload"] == (not ended), row
            if ended:
                owed = row["watermark"] > 0 or row["state"] == JobState.SUCCEEDED
                assert row["charges"] == (1 if owed else 0), row
                assert not owed or row["charged"] == row["watermark"], row
            else:
                assert row["charges"] == 0, row

    @invariant()
    def no_limit_is_passed(self) -> None:
        for row in self.bench.rows(
            "SELECT q.tokens_day, q.requests_minute, q.cost_month, q.concurrency, w.* "
            "FROM tenants_quotawindow w JOIN tenants_quota q ON q.id = w.quota_id "
            "WHERE w.tenant_id = ANY(%s)",
            self.tenants,
        ):
            taken = {
                "tokens_day": row["tokens_day_used"] + row["tokens_day_held"],
                "requests_minute": row["requests_minute_used"],
                "cost_month": row["cost_month_used"] + row["cost_month_held"],
                "concurrency": row["active"],
            }
            for name, value in taken.items():
                assert row[name] is None or value <= row[name], (name, row)

    def teardown(self) -> None:
        """Whatever was left is ended, and then nothing is held."""
        while jobs := self.bench.claim(100):
            for job in jobs:
                self.bench.end(job, JobState.CANCELLED)
        self.bench.lapse(*self.jobs)
        self.bench.expire(*self.jobs)
        self.bench.sweep(max_attempts=1)
        self.the_books_balance()
        self.every_job_has_one_end()
        for row in self.bench.rows(BOOKS, self.tenants):
            assert {v for n, v in row.items() if n.endswith("_held") or n == "active"} == {0}


@pytest.fixture
def machine(
    servers: SessionServers,
    tenant_a: Organisation,
    tenant_b: Organisation,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[type[Money]]:
    """The machine on fresh tenants with limits of every kind, long ago."""
    first, second = factories.api_key(tenant_a), factories.api_key(tenant_a)
    other = factories.api_key(tenant_b)
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, tokens_day=400, concurrency=6)
    set_quota(context=tenant_a.context, api_key_id=first.api_key.id, requests_minute=5)
    set_quota(context=factories.TESTS, tenant_id=tenant_b.id, cost_month=900_000)

    class OnTheseTenants(Money):
        clock = Clock(datetime(2001, 1, 1, tzinfo=UTC))
        tenants = [tenant_a.id, tenant_b.id]
        callers = [credential(key) for key in (first, second, other)]

    monkeypatch.setattr(store, "Ledger", OnTheseTenants.clock.ledger)
    with Bench(servers, job_seconds=timedelta(days=36_500).total_seconds()) as bench:
        bench.superuser.execute(
            "UPDATE tenants_quotawindow SET minute_start = '2000-01-01', "
            "day_start = '2000-01-01', month_start = '2000-01-01' WHERE tenant_id = ANY(%s)",
            [OnTheseTenants.tenants],
        )
        OnTheseTenants.bench = bench
        yield OnTheseTenants


def test_keeps_the_books_whatever_happens_in_whatever_order(machine: type[Money]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
