"""A tenant is closed: what is erased, what is kept, and that kills change nothing of it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from django.db import transaction
from django.db.utils import ProgrammingError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.core.actors import Context, TenantRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import platform_scope
from tenants.closing import registry
from tenants.closing.deletion import advance, work_on
from tenants.closing.tasks import work_on_closings, work_on_exports
from tenants.models import TenantClosure
from tenants.services import (
    add_member,
    close_tenant,
    create_tenant,
    edit_tenant,
    newest_export,
    reopen_tenant,
    request_export,
    resume_tenant,
    set_quota,
    suspend_tenant,
)
from tests.factories import TESTS, Organisation, api_key, unique
from tests.isolation.rows import insert, new_row
from tests.servers import SessionServers
from tests.tenants.closings import (
    close,
    digest_of,
    finish,
    full_tenant,
    rows_of,
    state_of,
    tenant_tables,
)
from tests.waiting import eventually


def test_every_table_of_tenants_rows_is_erased_or_kept(
    database: None, owner_sql: psycopg.Connection
) -> None:
    """A new table fails here until its app says which: one line with ``erase_rows`` or
    ``keep_rows`` where the app registers what it does at a closing."""
    tables = tenant_tables(owner_sql)
    erased = {eraser.name for eraser in registry.erasers()} & tables | {registry.DATA_KEYS}
    assert erased | set(registry.kept()) == tables
    assert erased & set(registry.kept()) == set()


def test_close_tenant_leaves_nothing_to_read_and_keeps_the_rest_as_it_was(
    database: None, owner_sql: psycopg.Connection
) -> None:
    full = full_tenant(owner_sql)
    other = full_tenant(owner_sql, "neighbour")
    (now,) = owner_sql.execute("SELECT clock_timestamp()").fetchone() or ()
    others = {t: rows_of(owner_sql, t, other.id) for t in tenant_tables(owner_sql)}
    before = {
        t: digest_of(owner_sql, t, full.id, now)
        for t in ("tenants_ledgerentry", "audit_event", "audit_body", "audit_leaf")
    }
    buckets = rows_of(owner_sql, "tenants_usagebucket", full.id)
    close(full.organisation)
    finish(full.id)
    left = {t for t in tenant_tables(owner_sql) if rows_of(owner_sql, t, full.id)}
    assert left == set(registry.kept())
    assert {t: digest_of(owner_sql, t, full.id, now) for t in before} == before
    assert rows_of(owner_sql, "tenants_usagebucket", full.id) == buckets
    assert {t: rows_of(owner_sql, t, other.id) for t in tenant_tables(owner_sql)} == others
    state = owner_sql.execute("SELECT state FROM tenants_tenant WHERE id = %s", [full.id])
    assert state.fetchone() == ("closed",)


def test_close_tenant_revokes_its_keys_and_asks_for_nothing_else_yet(
    tenant_a: Organisation, system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    api_key(tenant_a)
    closure = close(tenant_a, system_admin, grace_days=7)
    assert closure.delete_after - closure.asked_at == timedelta(days=7)
    assert closure.asked_by == system_admin.actor.label
    live = "SELECT count(*) FROM tenants_apikey WHERE tenant_id = %s AND revoked_at IS NULL"
    assert owner_sql.execute(live, [tenant_a.id]).fetchone() == (0,)
    work_on(tenant_a.id)
    assert len(rows_of(owner_sql, "tenants_membership", tenant_a.id)) == 4
    event = owner_sql.execute(
        "SELECT reason, actor_label FROM audit_event "
        "WHERE tenant_id = %s AND action = 'tenant.close'",
        [tenant_a.id],
    ).fetchall()
    assert event == [("the contract ended", system_admin.actor.label)]


def test_close_tenant_without_its_exact_name_is_refused(
    tenant_a: Organisation, system_admin: Context
) -> None:
    for name in ("", tenant_a.tenant.name.lower(), tenant_a.tenant.slug):
        with pytest.raises(Invalid) as refused:
            close_tenant(context=system_admin, tenant_id=tenant_a.id, name=name, reason="over")
        assert refused.value.param == "name"


def test_close_tenant_is_the_system_administrators_alone(
    tenant_a: Organisation, security_admin: Context, audit_admin: Context
) -> None:
    for context in (tenant_a.context, security_admin, audit_admin):
        with pytest.raises(Forbidden):
            close(tenant_a, context)
        with pytest.raises(Forbidden):
            reopen_tenant(context=context, tenant_id=tenant_a.id, reason="a mistake")


def test_close_tenant_that_is_not_there_is_not_found(system_admin: Context) -> None:
    with pytest.raises(NotFound):
        close_tenant(context=system_admin, tenant_id=uuid7(), name="x", reason="over")


def test_reopen_tenant_before_its_deletion_restores_the_state_it_had(
    tenant_a: Organisation, system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    suspend_tenant(context=system_admin, tenant_id=tenant_a.id, reason="unpaid")
    close(tenant_a, system_admin, grace_days=1)
    with pytest.raises(Conflict):
        close(tenant_a, system_admin)
    for verb in (suspend_tenant, resume_tenant):
        with pytest.raises(Conflict):
            verb(context=system_admin, tenant_id=tenant_a.id, reason="unpaid")
    tenant = reopen_tenant(context=system_admin, tenant_id=tenant_a.id, reason="a mistake")
    assert tenant.state == "suspended"
    assert not advance(tenant_a.id).more
    close(tenant_a, system_admin)
    finish(tenant_a.id)
    states = [c[0] for c in owner_sql.execute(
        "SELECT state FROM tenants_tenantclosure WHERE tenant_id = %s ORDER BY id", [tenant_a.id]
    )]  # fmt: skip
    assert states == ["reopened", "closed"]


def test_reopen_tenant_after_its_deletion_began_is_refused(
    tenant_a: Organisation, system_admin: Context
) -> None:
    close(tenant_a)
    while advance(tenant_a.id).more:
        with platform_scope(TESTS, reason="a test"):
            closure = TenantClosure.objects.get(tenant_id=tenant_a.id)
        if closure.state == "deleting":
            break
    with pytest.raises(Conflict):
        reopen_tenant(context=system_admin, tenant_id=tenant_a.id, reason="a mistake")


def test_close_tenant_again_after_it_is_closed_is_refused(
    tenant_a: Organisation, system_admin: Context
) -> None:
    close(tenant_a)
    finish(tenant_a.id)
    with pytest.raises(Conflict):
        close(tenant_a, system_admin)
    with pytest.raises(Conflict):
        reopen_tenant(context=system_admin, tenant_id=tenant_a.id, reason="a mistake")
    with pytest.raises(Conflict):
        edit_tenant(context=system_admin, tenant_id=tenant_a.id, name="another")


def test_reuse_name_of_a_closed_tenant_is_refused(
    tenant_a: Organisation, tenant_b: Organisation, system_admin: Context
) -> None:
    close(tenant_a)
    finish(tenant_a.id)
    name, slug = tenant_a.tenant.name, tenant_a.tenant.slug
    for field, wanted in (("slug", (unique("New"), slug)), ("name", (name.upper(), unique("n")))):
        with pytest.raises(Conflict) as refused:
            create_tenant(
                context=system_admin, name=wanted[0], slug=wanted[1], owner_email="o@x.example.test"
            )
        assert refused.value.param == field
    with pytest.raises(Conflict):
        edit_tenant(context=system_admin, tenant_id=tenant_b.id, name=name)


class Killed(Exception):
    """The worker dies before its transaction is committed."""


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kills=st.lists(st.booleans(), max_size=40),
    most=st.integers(min_value=1, max_value=4),
)
def test_kill_deletion_at_any_step_ends_as_if_never_killed(
    database: None, owner_sql: psycopg.Connection, kills: list[bool], most: int
) -> None:
    """Each erased row is counted once, whatever was rolled back between two steps."""
    full = full_tenant(owner_sql)
    erased = {e.name for e in registry.erasers()} & tenant_tables(owner_sql)
    before = {table: len(rows_of(owner_sql, table, full.id)) for table in erased}
    close(full.organisation)
    for killed in kills:
        if not killed:
            if advance(full.id, most=most).finished:
                break
            continue
        # The last step reads a moment of its own, which it can't within another transaction.
        with pytest.raises((Killed, RuntimeError)), transaction.atomic():
            advance(full.id, most=most)
            raise Killed
    else:
        finish(full.id, most=most)
    steps: dict[str, int] = dict(
        owner_sql.execute(
            "SELECT s.name, s.erased FROM tenants_closurestep s "
            "JOIN tenants_tenantclosure c ON c.id = s.closure_id "
            "WHERE s.tenant_id = %s AND c.state = 'closed'",
            [full.id],
        ).fetchall()
    )
    assert {table: steps[table] for table in erased} == before
    assert [t for t in erased if rows_of(owner_sql, t, full.id)] == []
    assert len(rows_of(owner_sql, "tenants_tenantcertificate", full.id)) == 2


def test_two_workers_at_one_deletion_erase_each_row_once(
    database: None, owner_sql: psycopg.Connection, servers: SessionServers
) -> None:
    full = full_tenant(owner_sql)
    close(full.organisation)
    with psycopg.connect(servers.url("superuser")) as other:
        other.execute("SELECT 1 FROM tenants_tenant WHERE id = %s FOR UPDATE", [full.id])
        assert not advance(full.id).more
        other.rollback()
    finish(full.id)


def test_write_behind_a_finished_step_is_erased_before_the_end(
    database: None, owner_sql: psycopg.Connection
) -> None:
    full = full_tenant(owner_sql)
    closure = close(full.organisation)
    step = new_row("tenants_closurestep", full.organisation, {"closure_id": closure.pk})
    finished = {"name": "tenants_apikey", "finished_at": closure.asked_at}
    insert(owner_sql, "tenants_closurestep", step | finished)
    finish(full.id)
    assert rows_of(owner_sql, "tenants_apikey", full.id) == []
    counted = "SELECT erased FROM tenants_closurestep WHERE id = %s"
    assert owner_sql.execute(counted, [step["id"]]).fetchone() == (1,)


def test_write_to_a_closed_tenant_is_refused(
    tenant_a: Organisation, system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    close(tenant_a)
    for _ in ("closing", "closed"):
        with pytest.raises(Conflict):
            set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=1)
        finish(tenant_a.id)
    with pytest.raises(ProgrammingError):
        add_member(context=tenant_a.context, email="new@x.example.test", role=TenantRole.VIEWER)
    with pytest.raises(ProgrammingError):
        api_key(tenant_a)
    assert rows_of(owner_sql, "tenants_membership", tenant_a.id) == []


def test_write_that_waits_for_the_end_of_a_deletion_is_refused(
    tenant_a: Organisation, owner_sql: psycopg.Connection, servers: SessionServers
) -> None:
    """It saw an open tenant; what it writes may not outlive the closing."""
    row = new_row("tenants_apikey", tenant_a, {})
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
    with psycopg.connect(servers.url("superuser")) as ending, ThreadPoolExecutor(1) as pool:
        ending.execute("SELECT 1 FROM tenants_tenant WHERE id = %s FOR UPDATE", [tenant_a.id])
        ending.execute("UPDATE tenants_tenant SET state = 'closed' WHERE id = %s", [tenant_a.id])
        pid = owner_sql.info.backend_pid
        writing = pool.submit(insert, owner_sql, "tenants_apikey", row)
        with psycopg.connect(servers.url("superuser"), autocommit=True) as watching:
            eventually(
                lambda: watching.execute(waits, [pid]).fetchone() == (1,),
                every=0.02,
                what="the write waits",
            )
        ending.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writing.result(30)


def test_task_closes_what_is_due_and_makes_what_was_asked_for(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    """The io worker's own tasks find their work in the database, whoever asked."""
    request_export(context=tenant_b.context, tenant_id=tenant_b.id)
    close(tenant_a)

    def done() -> bool:
        work_on_closings()
        work_on_exports()
        ready = newest_export(context=tenant_b.context, tenant_id=tenant_b.id).state == "ready"
        return ready and state_of(tenant_a.id) == "closed"

    eventually(done, within=60, every=0.1, what="closed and exported")
