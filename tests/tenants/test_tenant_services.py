"""Tenants are made whole, edited and suspended; each change stands in the trail."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from portal.core.actors import Context, TenantRole
from portal.core.crypto import KEY_BYTES, Keyring
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from tenants.errors import SeparatedDuties, TenantNotActive
from tenants.identity.keys import authenticate_api_key
from tenants.services import (
    create_tenant,
    create_user,
    edit_tenant,
    resume_tenant,
    suspend_tenant,
)
from tests.factories import TESTS, Organisation, api_key, unique


def test_create_tenant_makes_all_that_admission_needs(
    system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    slug = unique("shop")
    made = create_tenant(
        context=system_admin,
        name="Shop",
        slug=slug,
        time_zone="Asia/Shanghai",
        owner_email=f"Boss@{slug}.Example.test",
    )
    tenant = made.tenant.id
    assert made.owner.email == f"boss@{slug}.example.test"
    assert made.password is not None
    assert made.owner.check_password(made.password)
    wrapped = _one(
        owner_sql, "SELECT wrapped FROM tenants_tenantdatakey WHERE tenant_id = %s", tenant
    )
    keyring = Keyring.parse(env().encryption_keys.get_secret_value())
    assert len(keyring.unwrap(bytes(wrapped[0]), context=tenant.bytes)) == KEY_BYTES
    role = _one(owner_sql, "SELECT role FROM tenants_membership WHERE tenant_id = %s", tenant)
    assert role == (TenantRole.OWNER,)
    day, month = _one(
        owner_sql,
        "SELECT day_start, month_start FROM tenants_quotawindow w JOIN tenants_quota q "
        "ON q.id = w.quota_id WHERE q.tenant_id = %s AND q.api_key_id IS NULL",
        tenant,
    )
    assert {day.astimezone(UTC).hour, month.astimezone(UTC).hour} == {16}


def test_create_tenant_records_one_intent_that_the_rows_point_to(
    system_admin: Context, owner_sql: psycopg.Connection
) -> None:
    slug = unique("shop")
    made = create_tenant(
        context=system_admin, name="Shop", slug=slug, owner_email=f"o@{slug}.example.test"
    )
    events = owner_sql.execute(
        "SELECT id, category, action, intent_id, actor_label FROM audit_event WHERE tenant_id = %s",
        [made.tenant.id],
    ).fetchall()
    intent = next(e for e in events if e[2] == "tenant.create")
    changes = {e[2] for e in events if e[1] == "change" and e[3] == intent[0]}
    assert {
        "tenants.tenant.insert",
        "tenants.tenantdatakey.insert",
        "tenants.membership.insert",
        "tenants.quota.insert",
    } <= changes
    assert {e[4] for e in events} == {system_admin.actor.label}


def test_create_tenant_for_existing_person_gives_no_password(
    system_admin: Context, tenant_a: Organisation
) -> None:
    made = create_tenant(
        context=system_admin,
        name="Second",
        slug=unique("second"),
        owner_email=tenant_a.developer.user.email.upper(),
    )
    assert made.owner == tenant_a.developer.user
    assert made.password is None


def test_create_tenant_taken_slug_is_a_conflict_and_leaves_nothing(
    system_admin: Context, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    email = f"{unique('new')}@example.test"
    with pytest.raises(Conflict) as refusal:
        create_tenant(
            context=system_admin, name="Again", slug=tenant_a.tenant.slug, owner_email=email
        )
    assert refusal.value.param == "slug"
    assert owner_sql.execute("SELECT 1 FROM tenants_user WHERE email = %s", [email]).rowcount == 0


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("name", ""),
        ("name", "x" * 121),
        ("name", "a\x00b"),
        ("name", "a\nb"),
        ("slug", "two words"),
        ("slug", "x" * 61),
        ("slug", ""),
        ("slug", "a\x00b"),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../../etc/passwd"),
        ("owner_email", "nobody"),
        ("owner_email", "a\x00@example.test"),
    ],
)
def test_create_tenant_bad_input_names_the_field(
    system_admin: Context, param: str, value: str
) -> None:
    fields = {
        "name": "Shop",
        "slug": unique("shop"),
        "time_zone": "UTC",
        "owner_email": f"{unique('o')}@example.test",
    }
    with pytest.raises(Invalid) as refusal:
        create_tenant(context=system_admin, **{**fields, param: value})
    assert refusal.value.param == param


def test_create_tenant_owned_by_an_administrator_is_refused(
    system_admin: Context, security_admin: Context
) -> None:
    with pytest.raises(SeparatedDuties):
        create_tenant(
            context=system_admin,
            name="Shop",
            slug=unique("shop"),
            owner_email=security_admin.actor.label,
        )


def test_create_tenant_by_an_owner_is_forbidden(tenant_a: Organisation) -> None:
    with pytest.raises(Forbidden):
        create_tenant(
            context=tenant_a.context, name="X", slug=unique("x"), owner_email="o@example.test"
        )


def test_edit_tenant_changes_only_what_is_given(
    system_admin: Context, tenant_a: Organisation
) -> None:
    edited = edit_tenant(context=system_admin, tenant_id=tenant_a.id, weight=7)
    assert (edited.weight, edited.name) == (7, tenant_a.tenant.name)


@pytest.mark.parametrize("weight", [0, 101, -1])
def test_edit_tenant_weight_out_of_range_is_refused(
    system_admin: Context, tenant_a: Organisation, weight: int
) -> None:
    with pytest.raises(Invalid) as refusal:
        edit_tenant(context=system_admin, tenant_id=tenant_a.id, weight=weight)
    assert refusal.value.param == "weight"


def test_edit_tenant_missing_is_not_found(system_admin: Context) -> None:
    with pytest.raises(NotFound):
        edit_tenant(context=system_admin, tenant_id=uuid7(), name="X")


def test_suspend_tenant_refuses_its_keys_until_it_is_resumed(
    system_admin: Context, tenant_a: Organisation
) -> None:
    token = api_key(tenant_a).token
    suspend_tenant(context=system_admin, tenant_id=tenant_a.id, reason="unpaid")
    with pytest.raises(TenantNotActive):
        authenticate_api_key(token, base=TESTS)
    with pytest.raises(Conflict):
        suspend_tenant(context=system_admin, tenant_id=tenant_a.id, reason="unpaid")
    resume_tenant(context=system_admin, tenant_id=tenant_a.id, reason="paid")
    assert authenticate_api_key(token, base=TESTS).tenant_id == tenant_a.id


def test_suspend_tenant_records_the_reason_in_its_trail(
    system_admin: Context, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    suspend_tenant(context=system_admin, tenant_id=tenant_a.id, reason="unpaid since May")
    reason = _one(
        owner_sql,
        "SELECT reason FROM audit_event WHERE tenant_id = %s AND action = 'tenant.suspend' "
        "AND category = 'intent'",
        tenant_a.id,
    )
    assert reason == ("unpaid since May",)


def test_create_user_twice_is_a_conflict(system_admin: Context) -> None:
    email = f"{unique('twice')}@example.test"
    create_user(context=system_admin, email=email)
    with pytest.raises(Conflict):
        create_user(context=system_admin, email=email.upper())


def test_create_user_weak_password_is_refused(system_admin: Context) -> None:
    with pytest.raises(Invalid) as refusal:
        create_user(context=system_admin, email=f"{unique('w')}@example.test", password="short")
    assert refusal.value.param == "password"


def _one(connection: psycopg.Connection, query: str, tenant_id: UUID) -> tuple[Any, ...]:
    row = connection.execute(query, [tenant_id]).fetchone()
    assert row is not None
    return tuple(row)


def test_create_tenant_windows_began_before_now(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    starts = _one(
        owner_sql,
        "SELECT minute_start, day_start, month_start FROM tenants_quotawindow WHERE tenant_id = %s",
        tenant_a.id,
    )
    assert all(isinstance(s, datetime) and s <= datetime.now(UTC) for s in starts)
