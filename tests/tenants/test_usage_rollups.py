"""Rollups equal the ledger, whoever writes, commits late, or dies in between."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from portal.core.errors import Forbidden
from portal.core.ids import uuid7
from tenants.services import check_usage, repair_usage, roll_up_usage
from tests import factories
from tests.factories import TESTS, Organisation
from tests.rollups import roll_up_all
from tests.servers import SessionServers
from tests.waiting import eventually

INSERT: Final = """
INSERT INTO tenants_ledgerentry (id, tenant_id, job_id, api_key_id, user_id, model_id, sku,
    prompt_tokens, completion_tokens, cost, currency, measure, admitted_at, recorded_at)
VALUES (%(id)s, %(tenant)s, %(job)s, %(key)s, %(user)s, %(model)s, 'm@1', %(prompt)s, 2, 3, 'USD',
    'measured', clock_timestamp() - %(age)s,
    clock_timestamp() - %(recorded)s)
"""
MODEL: Final = uuid7()
SINCE: Final = datetime(2000, 1, 1, tzinfo=UTC)

LEDGER: Final = """
SELECT tenant_id, date_bin('15 minutes', admitted_at, '2000-01-01 00:00+00') AS starts_at, user_id,
       api_key_id, model_id, sku, currency, count(*), sum(prompt_tokens), sum(completion_tokens),
       sum(cost)
  FROM tenants_ledgerentry WHERE tenant_id = ANY(%s) GROUP BY 1, 2, 3, 4, 5, 6, 7
 ORDER BY 1, 2, 3, 4, 8
"""
ROLLED_UP: Final = """
SELECT tenant_id, starts_at, user_id, api_key_id, model_id, sku, currency, requests, prompt_tokens,
       completion_tokens, cost
  FROM tenants_usagebucket WHERE tenant_id = ANY(%s) ORDER BY 1, 2, 3, 4, 8
"""


def charge(
    connection: psycopg.Connection,
    tenant_id: UUID,
    *,
    user: UUID | None = None,
    key: UUID | None = None,
    prompt: int = 1,
    age: timedelta = timedelta(),
    recorded: timedelta = timedelta(),
) -> None:
    """Adds one entry to the ledger, for a request admitted and recorded so long ago."""
    row = {"id": uuid7(), "tenant": tenant_id, "job": uuid7(), "key": key, "user": user}
    connection.execute(
        INSERT, {**row, "model": MODEL, "prompt": prompt, "age": age, "recorded": recorded}
    )


class Rollups(RuleBasedStateMachine):
    """Writers that commit when they like, and a rollup that may die or have a rival."""

    servers: SessionServers
    superuser: psycopg.Connection
    tenants: list[UUID]
    users: list[UUID | None]

    writers = Bundle("writers")

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()

    @rule(target=writers)
    def begin(self) -> psycopg.Connection:
        connection = psycopg.connect(self.servers.url("gateway"))
        self.open.callback(connection.close)
        return connection

    @rule(
        writer=writers,
        tenant=st.integers(0, 1),
        user=st.integers(0, 2),
        prompt=st.integers(0, 10**12),
        minutes=st.integers(0, 50),
    )
    def write(
        self, writer: psycopg.Connection, tenant: int, user: int, prompt: int, minutes: int
    ) -> None:
        age = timedelta(minutes=minutes)
        charge(writer, self.tenants[tenant], user=self.users[user], prompt=prompt, age=age)

    @rule(writer=writers)
    def commit(self, writer: psycopg.Connection) -> None:
        writer.commit()

    @rule(writer=consumes(writers))
    def roll_back(self, writer: psycopg.Connection) -> None:
        writer.close()

    @rule()
    def roll_up(self) -> None:
        roll_up_usage(context=TESTS)

    @rule()
    def roll_up_and_die(self) -> None:
        with psycopg.connect(self.servers.url("app")) as doomed:
            doomed.execute("SELECT usage_roll_up()")
            doomed.rollback()

    @invariant()
    def what_is_rolled_up_is_what_was_counted(self) -> None:
        assert check_usage(context=TESTS, since=SINCE) == []

    def teardown(self) -> None:
        self.open.close()
        roll_up_all()
        ledger = self.superuser.execute(LEDGER, [self.tenants]).fetchall()
        assert self.superuser.execute(ROLLED_UP, [self.tenants]).fetchall() == ledger


def test_roll_up_in_any_order_with_late_commits_and_crashes_ends_equal_to_the_ledger(
    servers: SessionServers,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
    tenant_b: Organisation,
) -> None:
    class OnTheseTenants(Rollups):
        tenants = [tenant_a.id, tenant_b.id]
        users = [tenant_a.owner.user.id, tenant_b.owner.user.id, None]
        superuser = owner_sql

    OnTheseTenants.servers = servers
    run_state_machine_as_test(
        OnTheseTenants,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _requests(owner_sql: psycopg.Connection, tenant_id: UUID) -> int:
    query = "SELECT coalesce(sum(requests), 0)::int FROM tenants_usagebucket WHERE tenant_id = %s"
    (found,) = owner_sql.execute(query, [tenant_id]).fetchone() or (0,)
    return int(found)


def _complete_until(owner_sql: psycopg.Connection) -> datetime:
    query = "SELECT complete_until FROM tenants_usagewatermark"
    (found,) = owner_sql.execute(query).fetchone() or (None,)
    assert isinstance(found, datetime)
    return found


def test_roll_up_while_an_early_transaction_is_open_counts_it_once_it_commits(
    servers: SessionServers, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with psycopg.connect(servers.url("gateway")) as early:
        charge(early, tenant_a.id)
        recorded = datetime.now(UTC)
        charge(owner_sql, tenant_a.id)
        for _ in range(3):
            roll_up_usage(context=TESTS)
        assert _requests(owner_sql, tenant_a.id) == 0
        assert _complete_until(owner_sql) < recorded
        early.commit()
    for _ in range(2):
        roll_up_all()
        assert _requests(owner_sql, tenant_a.id) == 2
    assert _complete_until(owner_sql) > recorded


def test_roll_up_beside_a_transaction_of_an_hour_finds_what_it_recorded_first(
    servers: SessionServers, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with psycopg.connect(servers.url("gateway")) as early:
        charge(early, tenant_a.id, recorded=timedelta(hours=1))
        owner_sql.execute(
            "UPDATE tenants_usagewatermark SET since = now() - interval '2 hours', "
            "complete_until = now() - interval '2 hours', seen_at = now() - interval '2 hours'"
        )
        for _ in range(3):
            roll_up_usage(context=TESTS)
        early.commit()
    roll_up_all()
    assert _requests(owner_sql, tenant_a.id) == 1


def test_roll_up_beside_another_waits_and_counts_nothing_twice(
    servers: SessionServers, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    charge(owner_sql, tenant_a.id)
    waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    with (
        psycopg.connect(servers.url("app")) as one,
        psycopg.connect(servers.url("app")) as two,
        ThreadPoolExecutor(1) as beside,
    ):
        one.execute("SELECT usage_roll_up()")
        second = beside.submit(two.execute, "SELECT usage_roll_up()")
        pid = two.info.backend_pid
        eventually(lambda: owner_sql.execute(waits, [pid]).fetchone())
        one.commit()
        second.result()
        two.commit()
    roll_up_all()
    assert _requests(owner_sql, tenant_a.id) == 1


def _in_this_cluster(owner_sql: psycopg.Connection) -> bool:
    """Rolls up; whether it found a moment at which nobody wrote."""
    roll_up_usage(context=TESTS)
    query = "SELECT cluster = system_identifier FROM tenants_usagewatermark, pg_control_system()"
    return owner_sql.execute(query).fetchone() == (True,)


def test_roll_up_in_another_cluster_counts_every_charge_once(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    charge(owner_sql, tenant_a.id)
    roll_up_all()
    # As after a restore: the entries' transaction ids are ahead of this cluster's.
    owner_sql.execute("UPDATE tenants_usagewatermark SET cluster = 1, xid = xid + 1000000")
    eventually(lambda: _in_this_cluster(owner_sql))
    charge(owner_sql, tenant_a.id)
    for _ in range(2):
        roll_up_all()
        assert _requests(owner_sql, tenant_a.id) == 2
    assert check_usage(context=TESTS, since=SINCE) == []


@pytest.fixture
def tampered(tenant_a: Organisation, owner_sql: psycopg.Connection) -> Iterator[Organisation]:
    """A tenant with one bucket that is wrong and one that nobody paid for."""
    charge(owner_sql, tenant_a.id, user=tenant_a.owner.user.id, prompt=7)
    roll_up_all()
    owner_sql.execute(
        "UPDATE tenants_usagebucket SET prompt_tokens = 8 WHERE tenant_id = %s", [tenant_a.id]
    )
    owner_sql.execute(
        "INSERT INTO tenants_usagebucket SELECT %s, tenant_id, starts_at, NULL, NULL, model_id, "
        "sku, currency, 1, 0, 0, 5 FROM tenants_usagebucket WHERE tenant_id = %s",
        [uuid7(), tenant_a.id],
    )
    yield tenant_a
    repair_usage(context=TESTS, since=SINCE)


def _check(*words: str, first: str = "2000-01-01") -> str:
    said = StringIO()
    call_command("usage_check", "--from", first, *words, stdout=said)
    return said.getvalue()


def test_check_tampered_buckets_names_each(tampered: Organisation) -> None:
    said = StringIO()
    with pytest.raises(CommandError, match="2 buckets differ"):
        call_command("usage_check", "--from", "2000-01-01", stdout=said)
    lines = [line for line in said.getvalue().splitlines() if str(tampered.id) in line]
    assert len(lines) == 2
    assert any("prompt_tokens 8 instead of 7" in line for line in lines)
    assert any("requests 1 instead of 0, cost 5 instead of 0" in line for line in lines)


def test_check_another_period_finds_nothing(tampered: Organisation) -> None:
    assert _check("--to", "2001-01-01") == "The usage rollups equal the ledger.\n"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert _check(first=tomorrow) == "The usage rollups equal the ledger.\n"


def test_repair_tampered_buckets_restores_them_and_is_recorded(
    tampered: Organisation, owner_sql: psycopg.Connection
) -> None:
    assert "2 buckets were rebuilt" in _check("--repair")
    assert _check() == "The usage rollups equal the ledger.\n"
    assert (
        owner_sql.execute(ROLLED_UP, [[tampered.id]]).fetchall()
        == owner_sql.execute(LEDGER, [[tampered.id]]).fetchall()
    )
    details: list[Any] = owner_sql.execute(
        "SELECT b.detail FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.action = 'usage.repair' AND b.detail -> 'bucket' ->> 'tenant_id' = %s",
        [str(tampered.id)],
    ).fetchall()
    changes = [(d["before"]["prompt_tokens"], d["after"]["prompt_tokens"]) for (d,) in details]
    assert sorted(changes) == [(0, 0), (8, 7)]


def test_check_and_repair_by_any_person_are_refused(
    tenant_a: Organisation, system_admin: Any
) -> None:
    for context in (tenant_a.context, system_admin):
        for verb in (check_usage, repair_usage, roll_up_usage):
            with pytest.raises(Forbidden):
                verb(context=context)


def test_write_rollups_as_the_application_is_refused(
    tenant_a: Organisation, app_sql: psycopg.Connection, owner_sql: psycopg.Connection
) -> None:
    charge(owner_sql, tenant_a.id)
    roll_up_usage(context=factories.TESTS)
    for verb in ("UPDATE tenants_usagebucket SET cost = 0", "DELETE FROM tenants_usagebucket"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), app_sql.transaction():
            app_sql.execute("SELECT set_config('portal.tenant_id', %s, true)", [str(tenant_a.id)])
            app_sql.execute(verb.encode())
