"""Tenants' rows can't be reached outside a scope, by any of the ways there are."""

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from asgiref.sync import sync_to_async
from celery import Celery
from django.apps import apps
from django.db import connection, models, transaction
from django.db.models import Count
from psycopg import sql

from portal.core.ids import uuid7
from portal.core.tenancy import run_in_tenant, tenant_scope
from portal.core.tenancy.guard import UnscopedAccess, tenant_tables
from portal.core.tenancy.models import TenantModel
from tenants.models import Membership, Quota, Tenant
from tests.factories import Organisation

Way = Callable[[UUID], object]


def _cursor(statement: Any, *params: Any) -> object:
    with connection.cursor() as cursor:
        return cursor.execute(statement, params)


def _executemany(row: UUID) -> object:
    with connection.cursor() as cursor:
        return cursor.executemany(
            "UPDATE tenants_membership SET role = 'owner' WHERE id = %s", [[row], [row]]
        )


def _new(row: UUID) -> Membership:
    return Membership(tenant_id=row, user_id=row, role="owner")


ORM: dict[str, Way] = {
    "count": lambda row: Membership.objects.filter(pk=row).count(),
    "exists": lambda row: Membership.objects.filter(pk=row).exists(),
    "get": lambda row: Membership.objects.get(pk=row),
    "first": lambda row: Membership.objects.filter(pk=row).first(),
    "list": lambda row: list(Membership.objects.filter(pk=row)),
    "values": lambda row: list(Membership.objects.filter(pk=row).values_list("role")),
    "in_bulk": lambda row: Membership.objects.in_bulk([row]),
    "iterator": lambda row: list(Membership.objects.filter(pk=row).iterator()),
    "aggregate": lambda row: Membership.objects.filter(pk=row).aggregate(Count("id")),
    "explain": lambda row: Membership.objects.filter(pk=row).explain(),
    "update": lambda row: Membership.objects.filter(pk=row).update(role="owner"),
    "delete": lambda row: Membership.objects.filter(pk=row).delete(),
    "raw delete": lambda row: Membership(id=row).delete(),
    "save": lambda row: _new(row).save(),
    "create": lambda row: Membership.objects.create(tenant_id=row, user_id=row, role="owner"),
    "get_or_create": lambda row: Membership.objects.get_or_create(pk=row),
    "bulk_create": lambda row: Membership.objects.bulk_create([_new(row)]),
    "bulk_update": lambda row: Membership.objects.bulk_update(
        [Membership(id=row, role="owner")], ["role"]
    ),
    "refresh_from_db": lambda row: Membership(id=row).refresh_from_db(),
    "union": lambda row: list(Quota.objects.none().union(Membership.objects.values("id"))),
    "subquery": lambda row: list(
        Tenant.objects.filter(pk__in=Membership.objects.filter(pk=row).values("tenant"))
    ),
    "lazy relation": lambda row: Quota(id=row, tenant_id=row).tenant,
    "reverse relation": lambda row: list(Tenant(id=row).memberships.all()),
    "select_related": lambda row: list(Membership.objects.select_related("tenant").filter(pk=row)),
    "Model.objects.raw": lambda row: list(
        Membership.objects.raw("SELECT * FROM tenants_membership WHERE id = %s", [row])
    ),
    "raw cursor": lambda row: _cursor("SELECT 1 FROM tenants_membership WHERE id = %s", row),
    "quoted, upper case": lambda row: _cursor('SELECT 1 FROM public."tenants_membership" LIMIT 0'),
    "composed": lambda row: _cursor(
        sql.SQL("SELECT 1 FROM {} LIMIT 0").format(sql.Identifier("tenants_membership"))
    ),
    "executemany": _executemany,
    "truncate": lambda row: _cursor("TRUNCATE tenants_membership"),
    "lock": lambda row: _cursor("LOCK TABLE tenants_membership"),
}


@pytest.fixture
def present(tenant_a: Organisation) -> UUID:
    """The id of a row that exists."""
    with tenant_scope(tenant_a.context):
        return Membership.objects.get(user_id=tenant_a.owner.user.id).id


@pytest.mark.parametrize("way", ORM.values(), ids=ORM)
def test_touch_row_that_exists_without_scope_is_refused(present: UUID, way: Way) -> None:
    with pytest.raises(UnscopedAccess):
        way(present)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("way", ORM.values(), ids=ORM)
def test_touch_row_that_does_not_exist_without_scope_is_refused_alike(way: Way) -> None:
    with pytest.raises(UnscopedAccess):
        way(uuid7())


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("way", ORM.values(), ids=ORM)
def test_touch_row_inside_plain_transaction_is_refused(way: Way) -> None:
    with pytest.raises(UnscopedAccess), transaction.atomic():
        way(uuid7())


TENANT_MODELS: list[type[models.Model]] = [
    model for model in apps.get_models() if issubclass(model, TenantModel)
]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("model", TENANT_MODELS, ids=lambda m: m._meta.label)
def test_count_of_any_tenant_model_without_scope_is_refused(model: type[models.Model]) -> None:
    with pytest.raises(UnscopedAccess):
        model._default_manager.count()


def test_guard_knows_every_table_that_has_a_tenant_column(
    database: None, owner_sql: psycopg.Connection
) -> None:
    rows = owner_sql.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE a.attname = 'tenant_id' AND c.relnamespace = 'public'::regnamespace "
        "AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition"
    ).fetchall()
    assert {name for (name,) in rows} <= tenant_tables()


def test_guard_knows_the_table_of_tenants(database: None) -> None:
    assert "tenants_tenant" in tenant_tables()


@contextmanager
def _silent_psycopg() -> Iterator[psycopg.Cursor[Any]]:
    """psycopg's own cursor beneath Django's: the guard does not see what goes through it."""
    connection.ensure_connection()
    with connection.connection.cursor() as cursor:
        yield cursor


def test_copy_beneath_the_guard_is_refused_by_the_database(present: UUID) -> None:
    with _silent_psycopg() as cursor, pytest.raises(psycopg.errors.InsufficientPrivilege):
        with cursor.copy("COPY tenants_membership TO STDOUT") as copy:
            list(copy)


def test_copy_in_beneath_the_guard_is_refused_by_the_database(present: UUID) -> None:
    with _silent_psycopg() as cursor, pytest.raises(psycopg.Error):
        with cursor.copy("COPY tenants_membership (id) FROM STDIN") as copy:
            copy.write_row([str(uuid7())])


def test_django_cursor_copy_without_scope_is_refused(present: UUID) -> None:
    with (
        connection.cursor() as cursor,
        pytest.raises((UnscopedAccess, psycopg.errors.InsufficientPrivilege)),
    ):
        with cursor.copy("COPY tenants_membership TO STDOUT") as copy:
            list(copy)


def _in_thread(work: Callable[[], object]) -> object:
    def run() -> object:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def test_thread_that_inherits_the_scope_variable_is_refused(tenant_a: Organisation) -> None:
    with tenant_scope(tenant_a.context):
        inherited = contextvars.copy_context()
        with pytest.raises(UnscopedAccess):
            _in_thread(lambda: inherited.run(Membership.objects.count))


def test_thread_that_inherits_the_scope_and_opens_a_transaction_is_refused(
    tenant_a: Organisation,
) -> None:
    def count() -> int:
        with transaction.atomic():
            return Membership.objects.count()

    with tenant_scope(tenant_a.context):
        inherited = contextvars.copy_context()
        with pytest.raises(UnscopedAccess):
            _in_thread(lambda: inherited.run(count))


def test_copied_context_does_not_outlive_its_scope(tenant_a: Organisation) -> None:
    with tenant_scope(tenant_a.context):
        stale = contextvars.copy_context()
    with pytest.raises(UnscopedAccess), transaction.atomic():
        stale.run(Membership.objects.filter(pk=uuid7()).exists)


def test_scope_opened_in_a_stale_context_leaves_no_tenant_behind(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    def enter_other() -> None:
        with tenant_scope(tenant_b.context):
            assert Membership.objects.count() == 4

    with tenant_scope(tenant_a.context):
        stale = contextvars.copy_context()
    with transaction.atomic():
        stale.run(enter_other)
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('portal.tenant_id', true)")
            assert cursor.fetchone()[0] == ""


def _close_connection() -> None:
    # Looked up where it runs: each thread has a connection of its own.
    connection.close()


async def _close_async_connections() -> None:
    """Closes the connection that asgiref's own thread opened."""
    await sync_to_async(_close_connection)()


async def test_async_count_without_scope_is_refused(database: None) -> None:
    try:
        with pytest.raises(UnscopedAccess):
            await Membership.objects.acount()
    finally:
        await _close_async_connections()


async def test_async_get_without_scope_is_refused(database: None) -> None:
    try:
        with pytest.raises(UnscopedAccess):
            await Membership.objects.aget(pk=uuid7())
    finally:
        await _close_async_connections()


async def test_async_for_without_scope_is_refused(database: None) -> None:
    try:
        with pytest.raises(UnscopedAccess):
            async for _ in Membership.objects.exclude(role="owner"):
                pass
    finally:
        await _close_async_connections()


async def test_run_in_tenant_reaches_that_tenant_alone(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    def tenants() -> set[UUID]:
        return set(Membership.objects.values_list("tenant_id", flat=True))

    assert await run_in_tenant(tenant_a.context, tenants) == {tenant_a.id}
    assert await run_in_tenant(tenant_b.context, tenants) == {tenant_b.id}


async def test_run_in_tenant_leaves_no_scope_in_the_event_loop(tenant_a: Organisation) -> None:
    await run_in_tenant(tenant_a.context, Membership.objects.count)
    try:
        with pytest.raises(UnscopedAccess):
            await Membership.objects.acount()
    finally:
        await _close_async_connections()


def test_celery_task_without_scope_fails(tenant_a: Organisation) -> None:
    app = Celery("tests", broker="memory://")

    @app.task(name="tests.count")
    def count() -> int:
        return Membership.objects.count()

    with tenant_scope(tenant_a.context):
        result = _in_thread(count.apply)
    assert isinstance(result.result, UnscopedAccess)  # type: ignore[attr-defined]


def test_celery_task_inside_its_own_scope_sees_its_tenant(tenant_a: Organisation) -> None:
    app = Celery("tests", broker="memory://")

    @app.task(name="tests.count_scoped")
    def count() -> int:
        with tenant_scope(tenant_a.context):
            return Membership.objects.count()

    assert _in_thread(lambda: count.apply().get()) == 4


def test_many_threads_in_scopes_of_their_own_never_mix(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    begin = threading.Barrier(8)

    def tenants(organisation: Organisation) -> set[UUID]:
        begin.wait(30)
        try:
            with tenant_scope(organisation.context):
                return set(Membership.objects.values_list("tenant_id", flat=True))
        finally:
            connection.close()

    asked = [tenant_a, tenant_b] * 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tenants, asked)) == [{organisation.id} for organisation in asked]
