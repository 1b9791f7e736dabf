"""Scopes: what they set, what they give back, what they refuse."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction
from django.db.utils import ProgrammingError

from portal.core.actors import Context
from portal.core.database_roles import database_roles
from portal.core.tenancy import (
    CrossTenantScope,
    bare_scope,
    current_context,
    platform_scope,
    role_scope,
    tenant_scope,
    user_scope,
)
from portal.core.tenancy.guard import UnscopedAccess
from tenants.models import Membership, Tenant
from tests.factories import Organisation

ScopeOf = Callable[[Context], AbstractContextManager[None]]


class Boom(Exception):
    """Raised by tests inside scopes."""


def in_force() -> tuple[str, str]:
    """The database's own view: the tenant setting and the current role."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(current_setting('portal.tenant_id', true), ''), current_user"
        )
        tenant, role = cursor.fetchone()
    return tenant, role


APP = "portal_app"
UNSET = ("", APP)


def test_leave_scope_after_success_gives_back_tenant_and_role(tenant_a: Organisation) -> None:
    with transaction.atomic():
        with tenant_scope(tenant_a.context):
            assert in_force() == (str(tenant_a.id), APP)
        assert in_force() == UNSET


def test_leave_scope_after_exception_gives_back_tenant_and_role(tenant_a: Organisation) -> None:
    with transaction.atomic():
        with suppress(Boom), tenant_scope(tenant_a.context):
            raise Boom
        assert in_force() == UNSET


def test_leave_platform_scope_after_success_gives_back_the_outer_tenant(
    tenant_a: Organisation,
) -> None:
    with tenant_scope(tenant_a.context):
        with platform_scope(tenant_a.context, reason="test"):
            assert in_force()[1] == database_roles().platform
        assert in_force() == (str(tenant_a.id), APP)
        assert current_context() == tenant_a.context


def test_leave_platform_scope_after_exception_gives_back_the_outer_tenant(
    tenant_a: Organisation,
) -> None:
    with tenant_scope(tenant_a.context):
        with suppress(Boom), platform_scope(tenant_a.context, reason="test"):
            raise Boom
        assert in_force() == (str(tenant_a.id), APP)


def test_leave_scope_after_failed_statement_gives_back_the_outer_tenant(
    tenant_a: Organisation,
) -> None:
    with tenant_scope(tenant_a.context):
        with suppress(ProgrammingError), platform_scope(tenant_a.context, reason="test"):
            with connection.cursor() as cursor:
                cursor.execute("SELECT no_such_column")
        assert in_force() == (str(tenant_a.id), APP)
        assert Membership.objects.count() == 4


def test_roll_back_inner_scope_gives_back_the_outer_tenant(tenant_a: Organisation) -> None:
    with tenant_scope(tenant_a.context):
        with platform_scope(tenant_a.context, reason="test"):
            transaction.set_rollback(True)
        assert in_force() == (str(tenant_a.id), APP)


def test_savepoint_inside_scope_keeps_the_tenant(tenant_a: Organisation) -> None:
    with tenant_scope(tenant_a.context):
        with transaction.atomic():
            assert in_force() == (str(tenant_a.id), APP)
        with suppress(Boom), transaction.atomic():
            raise Boom
        assert in_force() == (str(tenant_a.id), APP)


def test_nested_scope_of_same_tenant_changes_actor_and_gives_it_back(
    tenant_a: Organisation,
) -> None:
    with tenant_scope(tenant_a.owner.context):
        with tenant_scope(tenant_a.viewer.context):
            assert current_context() == tenant_a.viewer.context
        assert current_context() == tenant_a.owner.context
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('portal.actor')::jsonb ->> 'id'")
            assert cursor.fetchone()[0] == str(tenant_a.owner.user.id)


INSIDE: dict[str, ScopeOf] = {
    "tenant": tenant_scope,
    "user": user_scope,
    "bare": bare_scope,
    "savepoint": lambda _: transaction.atomic(),
}


@pytest.mark.parametrize("between", INSIDE.values(), ids=INSIDE)
def test_open_scope_of_another_tenant_inside_a_tenants_is_refused(
    tenant_a: Organisation, tenant_b: Organisation, between: ScopeOf
) -> None:
    with tenant_scope(tenant_a.context), between(tenant_a.context):
        with pytest.raises(CrossTenantScope), tenant_scope(tenant_b.context):
            raise AssertionError("entered")


def test_read_another_tenants_audit_inside_a_tenants_scope_is_refused(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    reader = database_roles().audit_reader
    with tenant_scope(tenant_a.context):
        with pytest.raises(CrossTenantScope), role_scope(tenant_b.context, reader):
            raise AssertionError("entered")


def test_refused_scope_leaves_the_open_one_usable(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    with tenant_scope(tenant_a.context):
        with suppress(CrossTenantScope), tenant_scope(tenant_b.context):
            raise AssertionError("entered")
        assert set(Membership.objects.values_list("tenant_id", flat=True)) == {tenant_a.id}


def test_open_scope_of_each_tenant_inside_platform_scope_sees_that_tenant(
    tenant_a: Organisation, tenant_b: Organisation, system_admin: Context
) -> None:
    with platform_scope(system_admin, reason="test"):
        for organisation in (tenant_a, tenant_b):
            with tenant_scope(organisation.context):
                assert set(Membership.objects.values_list("tenant_id", flat=True)) == {
                    organisation.id
                }
        assert Membership.objects.filter(tenant_id__in=[tenant_a.id, tenant_b.id]).count() == 8


def test_open_tenant_scope_without_tenant_is_refused(system_admin: Context) -> None:
    with pytest.raises(ValueError, match="tenant"), tenant_scope(system_admin):
        raise AssertionError("entered")


def test_open_user_scope_without_user_is_refused(database: None) -> None:
    with pytest.raises(ValueError, match="user"), user_scope(Context.system("test")):
        raise AssertionError("entered")


def test_user_scope_shows_own_memberships_and_tenants_alone(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    with user_scope(tenant_a.viewer.context):
        mine = Membership.objects.get()
        assert (mine.user_id, mine.tenant_id) == (tenant_a.viewer.user.id, tenant_a.id)
        assert [tenant.id for tenant in Tenant.objects.all()] == [tenant_a.id]


def test_bare_scope_reads_no_tenants_row(tenant_a: Organisation) -> None:
    with pytest.raises(ProgrammingError, match="no tenant scope"):
        with bare_scope(tenant_a.context):
            Membership.objects.filter(tenant_id=tenant_a.id).count()


def test_current_context_outside_a_scope_is_refused(database: None) -> None:
    with pytest.raises(RuntimeError, match="No scope"):
        current_context()


def test_scope_ends_with_its_block(tenant_a: Organisation) -> None:
    with tenant_scope(tenant_a.context):
        Membership.objects.count()
    with pytest.raises(UnscopedAccess):
        Membership.objects.count()
    assert in_force() == UNSET


def test_platform_scope_without_reason_is_an_error(system_admin: Context) -> None:
    opener: Any = platform_scope
    with pytest.raises(TypeError, match="reason"):
        opener(system_admin)


@pytest.mark.parametrize("reason", ["", "   "])
def test_platform_scope_with_empty_reason_is_refused(system_admin: Context, reason: str) -> None:
    with pytest.raises(ValueError, match="reason"), platform_scope(system_admin, reason=reason):
        raise AssertionError("entered")


def _platform_scopes(owner_sql: psycopg.Connection, actor: UUID | None) -> list[str]:
    rows = owner_sql.execute(
        "SELECT reason FROM audit_event WHERE action = 'platform.scope' AND actor_id = %s", [actor]
    )
    return [reason for (reason,) in rows]


def test_platform_scope_records_who_and_why(
    system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    with platform_scope(system_admin, reason="count every tenant"):
        Tenant.objects.count()
    assert _platform_scopes(owner_sql, system_admin.user_id) == ["count every tenant"]


def test_platform_scope_that_cannot_be_recorded_stays_closed(
    system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    unrecordable = replace(system_admin, address="not an address")
    entered = False
    with pytest.raises(Exception, match="inet"), platform_scope(unrecordable, reason="test"):
        entered = True
    assert not entered
    assert _platform_scopes(owner_sql, system_admin.user_id) == []
