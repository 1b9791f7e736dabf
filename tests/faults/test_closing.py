"""A tenant is closed while it is busy, and while the worker that deletes it is killed."""

import json
import sys
from typing import Final

import psycopg
import pytest

from inference.models.jobs import JobState
from portal.core.supervisor.launch import child_env, spawn
from tenants.closing.deletion import advance
from tenants.services import find_certificate
from tests import factories
from tests.factories import TESTS
from tests.faults.arena import PATIENCE
from tests.faults.conftest import MakeArena
from tests.isolation.rows import insert, new_row
from tests.servers import ROOT, SessionServers
from tests.tenants.closings import close, finish, full_tenant, rows_of
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)


def test_close_tenant_under_load_ends_each_job_once_and_holds_nothing(
    set_arena: MakeArena,
) -> None:
    arena = set_arena(token_ms=20, slots=4)
    arena.worker()
    callers = arena.callers()
    streams = callers.start(20, stream=True, max_tokens=2000)
    whole = callers.start(20, stream=False, max_tokens=2000)
    eventually(
        lambda: arena.in_state(JobState.RUNNING) == 4 and arena.in_state(JobState.QUEUED) >= 30,
        within=PATIENCE,
        every=0.05,
        what="some run and some wait",
    )
    close(arena.tenant, grace_days=30)
    late = callers.start(10, stream=False, max_tokens=5)

    def settled() -> bool:
        advance(arena.tenant.id)
        (row,) = arena.rows(
            "SELECT settled_at FROM tenants_tenantclosure WHERE tenant_id = %s", arena.tenant.id
        )
        return row["settled_at"] is not None

    eventually(settled, within=PATIENCE, every=0.2, what="no job is live")
    jobs = arena.balance(within=1)
    assert {job["state"] for job in jobs} == {JobState.CANCELLED}
    callers.wait()
    assert len(arena.jobs()) == len(jobs) == 40
    assert {call.status for call in late} == {401}
    assert not any(call.finished for call in [*streams, *whole])
    ledger = "SELECT * FROM tenants_ledgerentry WHERE tenant_id = %s ORDER BY id"
    charged = arena.rows(ledger, arena.tenant.id)
    arena.rows(
        "UPDATE tenants_tenantclosure SET delete_after = now() WHERE tenant_id = %s RETURNING 1",
        arena.tenant.id,
    )
    finish(arena.tenant.id)
    assert arena.jobs() == []
    assert arena.rows(ledger, arena.tenant.id) == charged


# What an io worker's task does, one row a step.
WORK: Final = (
    "import sys, django; django.setup(); from uuid import UUID; "
    "from tenants.closing.deletion import work_on; "
    "work_on(UUID(sys.argv[1]), seconds=60, most=1)"
)


def test_kill_worker_while_it_deletes_counts_each_row_once(
    servers: SessionServers,
    database: None,
    owner_sql: psycopg.Connection,
) -> None:
    full = full_tenant(owner_sql, "killed")
    for _ in range(120):
        insert(owner_sql, "tenants_apikey", new_row("tenants_apikey", full.organisation, {}))
    keys = len(rows_of(owner_sql, "tenants_apikey", full.id))
    close(full.organisation)
    log = servers.layout.log / f"{factories.unique('closing')}.log"
    environment = child_env(servers.data_dir, {"DJANGO_SETTINGS_MODULE": "portal.settings"})
    for left in (keys - 1, keys - 40, keys - 80):
        process = spawn(
            [sys.executable, "-c", WORK, str(full.id)], log=log, cwd=ROOT, env=environment
        )

        def erased(most: int = left) -> bool:
            return len(rows_of(owner_sql, "tenants_apikey", full.id)) <= most

        eventually(erased, within=60, every=0.005, what=lambda: log.read_text()[-2000:])
        process.kill()
        process.wait()
    finish(full.id)
    document = json.loads(find_certificate(context=TESTS, tenant_id=full.id).document)
    counts = {step["what"]: step["count"] for step in document["deletion"]["erased"]}
    assert (counts["tenants_apikey"], counts["tenants_membership"]) == (keys, 4)
