"""Warnings beside admission and settlement, by a machine that does anything in any order.

After each step every warning is of a level that was reached when a round looked, each once; and
after each round every level that is reached has its warning.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
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
from inference.gateway.admission import Admitted
from inference.gateway.keys import Credential
from inference.models.jobs import JobState
from inference.worker.claims import Claimed
from tenants import warner
from tenants.models import LEVELS, METRICS, WARNED_WINDOWS
from tenants.services import delete_quota, set_quota
from tenants.windows import window_end, window_starts
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.inference.test_money import Clock
from tests.servers import SessionServers

ZONE: Final = "America/Havana"
MAX_TOKENS: Final = 40
LIMITS: dict[str, Any] = {"tokens_day": 300, "tokens_total": 900}
Key = tuple[UUID, str, datetime, int]
# The machine's clock never comes so far; a portal that another test keeps running tells by ours.
REAL_TIME: Final = datetime(2025, 1, 1, tzinfo=UTC)


class Warnings(RuleBasedStateMachine):
    """One tenant in a zone whose clocks change at midnight, limits that move, and rounds."""

    bench: Bench
    clock: Clock
    tenant: Organisation
    caller: Credential
    gateways: tuple[psycopg.Connection, psycopg.Connection]

    queued = Bundle("queued")
    told: dict[Key, int]
    others: set[Key]

    @initialize()
    def begin(self) -> None:
        # Every example begins with the same limits, in a month of its own, with levels that nobody
        # was warned of.
        set_quota(context=factories.TESTS, tenant_id=self.tenant.id, **LIMITS)
        start = window_starts(self.clock.now, ZONE)["month"]
        self.clock.now = window_end(start, "month", ZONE)
        self.bench.superuser.execute(
            "DELETE FROM tenants_quotawarning WHERE tenant_id = %s", [self.tenant.id]
        )
        self.bench.superuser.execute(
            "UPDATE tenants_quotawindow SET tokens_total_used = 0 WHERE tenant_id = %s",
            [self.tenant.id],
        )
        self.told = {}

    @rule(target=queued, count=st.integers(1, 4), max_tokens=st.integers(1, MAX_TOKENS))
    def admit(self, count: int, max_tokens: int) -> Any:
        pendings = [self.bench.pending(self.caller, max_tokens=max_tokens) for _ in range(count)]
        verdicts = self.bench.submit(pendings)
        return multiple(*(v.job_id for v in verdicts if isinstance(v, Admitted)))

    @rule(job=consumes(queued), tokens=st.integers(0, MAX_TOKENS))
    def settle(self, job: UUID, tokens: int) -> None:
        claimed: list[Claimed] = self.bench.claim(1)
        for one in claimed:
            self.bench.end(one, JobState.SUCCEEDED, min(tokens, one.parameters.max_tokens))

    @rule(by=st.sampled_from([timedelta(minutes=50), timedelta(hours=9), timedelta(days=2)]))
    def pass_time(self, by: timedelta) -> None:
        self.clock.now += by

    @rule(limit=st.sampled_from([None, 0, 1, 80, 150, 400]), name=st.sampled_from(["day", "total"]))
    def move_the_limit(self, limit: int | None, name: str) -> None:
        changed: dict[str, Any] = {f"tokens_{name}": limit}
        set_quota(context=factories.TESTS, tenant_id=self.tenant.id, **changed)

    @rule(rounds=st.integers(1, 2))
    def warn(self, rounds: int) -> None:
        before, reached = set(self.told), self._reached()
        recorded = [warner.warn(gateway, self.clock.now) for gateway in self.gateways[:rounds]]
        told = self._warnings()
        assert set(told) - self.others == (before | reached) - self.others
        assert sum(recorded[1:]) == 0
        self.told = told

    @invariant()
    def nothing_is_told_between_rounds_or_taken_back(self) -> None:
        if hasattr(self, "told"):
            told = self._warnings()
            assert {k: n for k, n in told.items() if k in self.told} == self.told
            assert set(told) - set(self.told) <= self.others

    def _warnings(self) -> dict[Key, int]:
        """How often each was told; the table's key is not trusted, nor is the trail's count."""
        rows = self.bench.rows(
            "SELECT n.*, (SELECT count(*) "
            "FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
            "WHERE e.action = 'quota.warn' AND e.object_id = n.quota_id::text "
            "AND b.detail->>'limit' = n.limit_name AND (b.detail->>'level')::int = n.level "
            "AND (b.detail->>'window_start')::timestamptz = n.window_start "
            "AND e.occurred_at = n.warned_at) AS events "
            "FROM tenants_quotawarning n WHERE n.tenant_id = %s",
            self.tenant.id,
        )
        found: dict[Key, int] = {}
        self.others = set()
        for row in rows:
            key = (row["quota_id"], row["limit_name"], row["window_start"], row["level"])
            assert key not in found
            assert row["taken"] * 100 >= row["level"] * row["maximum"] > 0
            assert row["events"] == 1
            found[key] = row["events"]
            if row["warned_at"] > REAL_TIME:
                self.others.add(key)
        return found

    def _reached(self) -> set[Key]:
        """What a round must have told by now, from the counters alone."""
        rows = self.bench.rows(
            "SELECT q.*, w.* FROM tenants_quotawindow w JOIN tenants_quota q ON q.id = w.quota_id "
            "WHERE q.tenant_id = %s",
            self.tenant.id,
        )
        starts = window_starts(self.clock.now, ZONE)
        found: set[Key] = set()
        for row in rows:
            for name in (f"{m}_{s}" for m in METRICS for s in WARNED_WINDOWS):
                span = name.rpartition("_")[2]
                start = row["created_at"] if span == "total" else row[f"{span}_start"]
                if span != "total" and start < starts[span]:
                    continue
                taken = row[f"{name}_used"] + row.get(f"{name}_held", 0)
                found |= {
                    (row["quota_id"], name, start, level)
                    for level in LEVELS
                    if row[name] and taken * 100 >= level * row[name]
                }
        return found

    def teardown(self) -> None:
        while jobs := self.bench.claim(100):
            for job in jobs:
                self.bench.end(job, JobState.CANCELLED)


@pytest.fixture
def remembered(owner_sql: psycopg.Connection) -> Iterator[None]:
    """Rounds of a portal that another test keeps running do not forget what is long past."""
    owner_sql.execute(
        """
        CREATE FUNCTION keep_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER remembered BEFORE DELETE ON tenants_quotawarning FOR EACH ROW
            WHEN (current_setting('application_name') = 'quota-warnings')
            EXECUTE FUNCTION keep_row()
        """
    )
    yield
    owner_sql.execute("DROP FUNCTION keep_row CASCADE")


@pytest.fixture
def machine(
    servers: SessionServers,
    tenant_a: Organisation,
    remembered: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[type[Warnings]]:
    """The machine on a fresh tenant with limits of every kind, long ago."""
    key = factories.api_key(tenant_a)
    set_quota(
        context=factories.TESTS,
        tenant_id=tenant_a.id,
        **LIMITS,
        cost_month=900_000,
    )
    set_quota(context=tenant_a.context, api_key_id=key.api_key.id, requests_day=7)

    class OnThisTenant(Warnings):
        clock = Clock(datetime(2001, 1, 1, tzinfo=UTC))
        tenant = tenant_a
        caller = credential(key)

    monkeypatch.setattr(store, "Ledger", OnThisTenant.clock.ledger)
    url = servers.url("gateway")
    with (
        Bench(servers, job_seconds=timedelta(days=36_500).total_seconds()) as bench,
        psycopg.connect(url, autocommit=True) as first,
        psycopg.connect(url, autocommit=True) as second,
    ):
        bench.superuser.execute(
            "UPDATE tenants_tenant SET time_zone = %s WHERE id = %s", [ZONE, tenant_a.id]
        )
        bench.superuser.execute(
            "UPDATE tenants_quotawindow SET minute_start = '2000-01-01', "
            "day_start = '2000-01-01', month_start = '2000-01-01' WHERE tenant_id = %s",
            [tenant_a.id],
        )
        OnThisTenant.bench = bench
        OnThisTenant.gateways = (first, second)
        yield OnThisTenant


def test_warns_of_each_level_once_whatever_happens_in_whatever_order(
    machine: type[Warnings],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_delete_a_quota_of_a_generation_under_way_settles_it_in_those_that_are_left(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    quota = set_quota(context=tenant_a.context, api_key_id=key.api_key.id, concurrency=1)
    (job_id,) = bench.admit(credential(key), max_tokens=8)
    delete_quota(context=tenant_a.context, quota_id=quota.id)
    (job,) = bench.claim(1)
    (ended,) = bench.end(job, JobState.SUCCEEDED, 3)
    assert (ended.job_id, ended.completion_tokens) == (job_id, 3)
    own = bench.window(tenant_a.id)
    charged = ended.prompt_tokens + 3
    assert (own["active"], own["tokens_day_held"], own["tokens_day_used"]) == (0, 0, charged)
    (left,) = bench.rows(
        "SELECT count(*) AS n FROM tenants_quotawindow WHERE tenant_id = %s", tenant_a.id
    )
    assert left["n"] == 1
