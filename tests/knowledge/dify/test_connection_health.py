"""The clock's look at connections: each once, whatever Dify does, and no tenant's for another."""

from datetime import timedelta
from unittest.mock import Mock
from uuid import UUID

import psycopg
import pytest
from django.utils import timezone

from knowledge.connections import tasks
from knowledge.connections.health import check_due
from knowledge.connections.selectors import connections
from knowledge.dify.channel import Endpoint
from knowledge.models import Connection, Health
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.test_connections import connect
from tests.live import LivePortal
from tests.servers import SessionServers
from tests.waiting import eventually


@pytest.fixture
def alone(owner_sql: psycopg.Connection, database: None) -> None:
    """Nothing that another test left is due."""
    owner_sql.execute("UPDATE knowledge_connection SET check_at = now() + interval '1 day'")


def make_due(owner_sql: psycopg.Connection, *made: Connection) -> None:
    owner_sql.execute(
        "UPDATE knowledge_connection SET check_at = now() WHERE id = ANY (%s)",
        [[row.id for row in made]],
    )


def look_at(servers: SessionServers, owner_sql: psycopg.Connection, *made: Connection) -> None:
    """Lets connections be due and looked at, by this process or a portal that runs beside it."""
    query = "SELECT min(checked_at) FROM knowledge_connection WHERE id = ANY (%s)"
    ids = [[row.id for row in made]]
    begun = timezone.now()
    make_due(owner_sql, *made)
    check_due(servers.url("gateway"))
    eventually(lambda: (owner_sql.execute(query, ids).fetchone() or [begun])[0] > begun)


def read(organisation: Organisation) -> Connection:
    with tenant_scope(organisation.viewer.context):
        return connections().get()


def test_connections_that_are_due_are_looked_at_each_in_its_tenant(
    alone: None,
    dify: DifyDouble,
    endpoint: Endpoint,
    servers: SessionServers,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
    tenant_b: Organisation,
) -> None:
    with DifyDouble() as broken:
        own = Endpoint(broken.url, broken.own.id, broken.console_key, broken.dataset_key)
        first = connect(tenant_a.owner.context, endpoint)
        second = connect(tenant_b.owner.context, own)
        broken.fail("failed", times=-1)
        dify.version = "1.17.0"
        look_at(servers, owner_sql, first, second)
        assert check_due(servers.url("gateway")) == 0
    assert (read(tenant_a).health, read(tenant_a).version) == (Health.HEALTHY, "1.17.0")
    found = read(tenant_b)
    assert (found.health, found.problem_code) == (Health.FAILING, "dify_failed")
    assert found.problem
    assert found.check_at > timezone.now() + timedelta(seconds=30)


def test_check_by_the_clock_tells_the_trail_once(
    alone: None,
    dify: DifyDouble,
    endpoint: Endpoint,
    servers: SessionServers,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    dify.fail("drop", times=-1)
    for _ in range(3):
        look_at(servers, owner_sql, made)
    assert _events(owner_sql, tenant_a.id) == [
        ("intent", "connection.create"),
        ("change", "knowledge.connection.insert"),
        ("intent", "connection.fail"),
    ]


def _events(owner_sql: psycopg.Connection, tenant: UUID) -> list[tuple[str, str]]:
    rows = owner_sql.execute(
        "SELECT category, action FROM audit_event WHERE tenant_id = %s "
        "AND object_type = 'knowledge.connection' ORDER BY id",
        [tenant],
    ).fetchall()
    return [(category, action) for category, action in rows]


def test_connection_of_a_suspended_tenant_is_left_alone(
    alone: None,
    dify: DifyDouble,
    endpoint: Endpoint,
    servers: SessionServers,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    dify.seen.clear()
    owner_sql.execute("UPDATE tenants_tenant SET state = 'suspended' WHERE id = %s", [tenant_a.id])
    make_due(owner_sql, made)
    assert check_due(servers.url("gateway")) == 0
    assert dify.seen == []


def test_gateways_role_reads_no_key(servers: SessionServers, endpoint: Endpoint) -> None:
    with (
        psycopg.connect(servers.url("gateway"), autocommit=True) as gateway,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        gateway.execute("SELECT sealed FROM knowledge_connection")


def test_task_looks_at_what_is_due(
    alone: None,
    dify: DifyDouble,
    endpoint: Endpoint,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    dify.version = "1.18.0"
    make_due(owner_sql, made)
    tasks.check_connections()
    eventually(lambda: read(tenant_a).version == "1.18.0")


def test_task_does_nothing_while_its_process_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_due = Mock(return_value=0)
    monkeypatch.setattr(tasks, "check_due", check_due)
    with tasks._alone:
        tasks.check_connections()
    assert check_due.call_count == 0
    tasks.check_connections()
    assert check_due.call_count == 1


def test_running_portal_looks_at_what_is_due(
    dify: DifyDouble,
    endpoint: Endpoint,
    live_portal: LivePortal,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    dify.version = "1.18.0"
    make_due(owner_sql, made)
    eventually(lambda: read(tenant_a).version == "1.18.0", within=60)
