"""The desk's transactions: what is answered is committed, and nobody pays for a neighbour."""

import threading
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from msgspec.structs import replace

from inference.gateway.admission import Admitted, Refused
from inference.models.jobs import JobState
from inference.pipelining import AsyncPipe
from portal.core.crypto import new_data_key
from portal.core.ids import uuid7
from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential, origin
from tests.servers import SessionServers
from tests.waiting import eventually

NOWHERE = "postgresql://portal_gateway@/portal?host=/nonexistent"


def jobs_of(bench: Bench, tenant_id: UUID) -> list[int]:
    rows = bench.rows("SELECT state FROM inference_job WHERE tenant_id = %s", tenant_id)
    return [row["state"] for row in rows]


def test_writes_job_payload_reservation_and_audit_together(
    bench: Bench, tenant_a: Organisation
) -> None:
    (job_id,) = bench.admit(
        credential(factories.api_key(tenant_a)), prompt="a secret", max_tokens=9
    )
    row, window = bench.job(job_id), bench.window(tenant_a.id)
    assert row["reserved_tokens"] == row["prompt_tokens"] + 9
    assert window["tokens_day_held"] == window["tokens_total_held"] == row["reserved_tokens"]
    assert window["cost_month_held"] == row["reserved_cost"] > 0
    assert (window["requests_minute_used"], window["active"]) == (1, 1)
    assert bench.payloads(job_id) == 1
    assert bench.outcomes(job_id) == [("requested", "")]
    (body,) = bench.rows(
        "SELECT b.detail::text AS detail FROM audit_body b JOIN audit_event e ON e.id = b.event_id "
        "WHERE e.object_id = %s",
        str(job_id),
    )
    assert "a secret" not in body["detail"]


def test_admits_many_at_once_in_parts_so_that_one_runs_while_the_next_is_admitted(
    bench: Bench, tenant_a: Organisation
) -> None:
    bench.rung.clear()
    ids = bench.admit(credential(factories.api_key(tenant_a)), 40)
    assert len(set(ids)) == 40
    # Half of 40, then at least 16 of the 20 that are left, then the rest: one ring a commit.
    assert len(bench.rung) == 3


def test_refuses_one_bad_row_and_admits_its_neighbours(
    bench: Bench, tenant_a: Organisation
) -> None:
    caller = credential(factories.api_key(tenant_a))
    # PostgreSQL takes no NUL in text: the whole batch's statement fails on it.
    bad = bench.pending(caller, call_origin=replace(origin(), client_request_id="a\0b"))
    batch = [bench.pending(caller), bad, bench.pending(caller)]
    first, refused, last = bench.submit(batch)
    assert isinstance(first, Admitted)
    assert isinstance(last, Admitted)
    assert isinstance(refused, psycopg.Error)
    assert jobs_of(bench, tenant_a.id) == [JobState.QUEUED] * 2
    assert bench.window(tenant_a.id)["active"] == 2


def test_refuses_only_the_tenant_whose_data_key_cannot_be_used(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    bench.superuser.execute(
        "INSERT INTO tenants_tenantdatakey (id, tenant_id, version, wrapped, created_at) "
        "VALUES (%s, %s, 2, %s, now())",
        [uuid7(), tenant_b.id, new_data_key()],
    )
    healthy, broken = (credential(factories.api_key(t)) for t in (tenant_a, tenant_b))
    admitted, refused = bench.submit([bench.pending(healthy), bench.pending(broken)])
    assert isinstance(admitted, Admitted)
    assert isinstance(refused, Refused)
    assert refused.error.error_status == 500
    assert jobs_of(bench, tenant_b.id) == []
    events = bench.rows(
        "SELECT outcome FROM audit_event WHERE tenant_id = %s AND action = 'inference.chat'",
        tenant_b.id,
    )
    assert [event["outcome"] for event in events] == ["failure"]


@pytest.fixture
def bench_without_database(servers: SessionServers, database: None) -> Iterator[Bench]:
    """A bench whose desk finds no database."""
    with Bench(servers, desk_url=NOWHERE) as made:
        yield made


def test_admits_nothing_when_the_database_is_gone(
    bench_without_database: Bench, tenant_a: Organisation
) -> None:
    bench = bench_without_database
    caller = credential(factories.api_key(tenant_a))
    verdicts = bench.submit([bench.pending(caller) for _ in range(5)])
    assert all(isinstance(v, psycopg.OperationalError) for v in verdicts), verdicts
    assert jobs_of(bench, tenant_a.id) == []
    assert bench.rung == []


def test_goes_on_over_a_new_connection_when_the_old_one_was_cut(
    bench: Bench, tenant_a: Organisation
) -> None:
    caller = credential(factories.api_key(tenant_a))
    bench.admit(caller)
    cut(bench)
    bench.admit(caller)
    assert jobs_of(bench, tenant_a.id) == [JobState.QUEUED] * 2


def cut(bench: Bench) -> int:
    """Ends the desk's server process; how many there were."""
    found = bench.rows(
        "SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity "
        "WHERE application_name = 'bench-admission'"
    )
    return len(found)


def test_cancels_what_it_may_have_admitted_when_the_commit_is_lost(
    bench: Bench, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = credential(factories.api_key(tenant_a))
    bench.admit(caller)
    (live,) = bench.rows("SELECT id FROM inference_job WHERE tenant_id = %s", tenant_a.id)
    finish = AsyncPipe.finish

    async def committed_but_unanswered(pipe: AsyncPipe) -> None:
        await finish(pipe)
        raise psycopg.OperationalError("the connection was lost while the answer was due")

    monkeypatch.setattr(AsyncPipe, "finish", committed_but_unanswered)
    (verdict,) = bench.submit([bench.pending(caller)])
    monkeypatch.undo()
    assert isinstance(verdict, psycopg.OperationalError)
    abandoned = bench.rows(
        "SELECT id FROM inference_job WHERE tenant_id = %s AND id <> %s", tenant_a.id, live["id"]
    )
    assert len(abandoned) == 1
    bench.run(_all_cancelled(bench))
    assert bench.job(abandoned[0]["id"])["state"] == JobState.CANCELLED
    assert bench.job(live["id"])["state"] == JobState.QUEUED
    assert bench.window(tenant_a.id)["active"] == 1


async def _all_cancelled(bench: Bench) -> None:
    await bench.canceller.close()


def test_waits_for_the_lock_and_decides_on_what_stands_then(
    bench: Bench, tenant_a: Organisation, gateway_sql: psycopg.Connection
) -> None:
    """Two gateways: the second must see what the first reserved."""
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_day=1)
    caller = credential(factories.api_key(tenant_a))
    (quota,) = bench.rows(
        "SELECT quota_id FROM tenants_quotawindow WHERE tenant_id = %s", tenant_a.id
    )
    verdicts: list[object] = []
    with gateway_sql.transaction():
        gateway_sql.execute(
            "UPDATE tenants_quotawindow SET requests_day_used = 1, day_start = "
            "date_trunc('day', now(), 'UTC') WHERE quota_id = %s",
            [quota["quota_id"]],
        )
        submitting = threading.Thread(
            target=lambda: verdicts.extend(bench.submit([bench.pending(caller)]))
        )
        submitting.start()
        eventually(
            lambda: bench.rows(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'bench-admission' "
                "AND wait_event_type = 'Lock'"
            ),
            what="the desk waits for the window",
        )
        assert verdicts == []
    submitting.join(20)
    (verdict,) = verdicts
    assert isinstance(verdict, Refused)
    assert verdict.error.error_code == "insufficient_quota"


def test_rings_once_a_batch_and_not_for_refusals(bench: Bench, tenant_a: Organisation) -> None:
    stranger = replace(credential(factories.api_key(tenant_a)), secret="wrong")
    bench.submit([bench.pending(stranger), bench.pending(None)])
    assert bench.rung == []
    bench.admit(credential(factories.api_key(tenant_a)), 10)
    assert {frozenset(queues) for queues in bench.rung} == {frozenset({bench.served.queue})}
    assert len(bench.rung) <= 2
