"""Service accounts: their keys hang on nobody, and nobody can log in as one."""

import threading
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, authenticate
from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, connection
from django.test import Client

from portal.core.actors import ANONYMOUS, Context, PlatformRole, TenantRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound, PortalError
from portal.core.tenancy import bare_scope, platform_scope, tenant_scope
from tenants.errors import InvalidApiKey, UserNotActive
from tenants.identity.keys import authenticate_api_key
from tenants.models import ApiKey, Membership, ServiceAccount, User
from tenants.services import (
    CreatedKey,
    add_member,
    change_member_role,
    create_api_key,
    create_service_account,
    create_user,
    deactivate_user,
    disable_service_account,
    edit_service_account,
    enable_service_account,
    reactivate_user,
    remove_member,
    reset_password,
    retire_service_account,
    rotate_api_key,
    set_platform_role,
    set_quota,
)
from tests.factories import TESTS, Organisation, unique

STRANGER = Context(actor=ANONYMOUS, address="192.0.2.1")


@pytest.fixture
def account(tenant_a: Organisation) -> ServiceAccount:
    return create_service_account(context=tenant_a.context, name="Invoice reader")


def key_of(
    organisation: Organisation, account: ServiceAccount, scopes: tuple[str, ...] = ("inference",)
) -> CreatedKey:
    return create_api_key(
        context=organisation.context, name="till", scopes=scopes, service_account_id=account.pk
    )


def caller(token: str) -> Context:
    return authenticate_api_key(token, base=STRANGER)


# What it is for.


def test_use_key_names_the_service_account_as_its_user(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    made = key_of(tenant_a, account)
    context = caller(made.token)
    assert (context.user_id, context.tenant_id) == (account.pk, tenant_a.id)
    assert made.api_key.user.label == "Invoice reader"


def test_remove_or_deactivate_the_maker_leaves_the_service_accounts_keys(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    with tenant_scope(tenant_a.context):
        second = Membership.objects.get(user=tenant_a.developer.user)
        first = Membership.objects.get(user=tenant_a.owner.user)
    ours = create_api_key(context=tenant_a.context, name="own", scopes=["inference"])
    theirs = key_of(tenant_a, account)
    change_member_role(context=tenant_a.context, membership_id=second.id, role=TenantRole.OWNER)
    remove_member(context=tenant_a.context, membership_id=first.id)
    deactivate_user(context=TESTS, user_id=tenant_a.owner.user.id, reason="has left")
    with pytest.raises(InvalidApiKey):
        caller(ours.token)
    assert caller(theirs.token).user_id == account.pk


def test_disable_stops_the_keys_at_once_and_enable_lets_them_go_on(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    made, context = key_of(tenant_a, account), tenant_a.context
    disable_service_account(context=context, service_account_id=account.pk, reason="a leak?")
    with pytest.raises(UserNotActive):
        caller(made.token)
    with pytest.raises(Conflict):
        key_of(tenant_a, account)
    with pytest.raises(Conflict):
        disable_service_account(context=context, service_account_id=account.pk, reason="again")
    enable_service_account(context=context, service_account_id=account.pk, reason="no leak")
    assert caller(made.token).user_id == account.pk
    with pytest.raises(Conflict):
        enable_service_account(context=context, service_account_id=account.pk, reason="again")


def test_retire_revokes_the_keys_frees_the_name_and_keeps_the_row(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    made, context = key_of(tenant_a, account), tenant_a.context
    retire_service_account(context=context, service_account_id=account.pk)
    with pytest.raises(InvalidApiKey):
        caller(made.token)
    again = create_service_account(context=context, name="invoice READER")
    assert again.pk != account.pk
    with tenant_scope(context):
        kept = ServiceAccount.objects.select_related("user").get(pk=account.pk)
        assert (kept.state, kept.user.label) == ("retired", "Invoice reader")
        assert ApiKey.objects.get(pk=made.api_key.pk).revoked_reason
    for change in (
        lambda: retire_service_account(context=context, service_account_id=account.pk),
        lambda: edit_service_account(context=context, service_account_id=account.pk, name="x"),
        lambda: enable_service_account(
            context=context, service_account_id=account.pk, reason="back"
        ),
        lambda: key_of(tenant_a, account),
    ):
        with pytest.raises(Conflict):
            change()


def test_retire_while_a_key_is_made_leaves_no_key_that_works(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    begin = threading.Barrier(2)
    tokens: list[str] = []

    def make() -> None:
        begin.wait(10)
        try:
            tokens.append(key_of(tenant_a, account).token)
        except PortalError:
            pass
        finally:
            connection.close()

    thread = threading.Thread(target=make)
    thread.start()
    begin.wait(10)
    retire_service_account(context=tenant_a.context, service_account_id=account.pk)
    thread.join(30)
    for token in tokens:
        with pytest.raises(InvalidApiKey):
            caller(token)


def test_edit_keeps_id_and_keys_and_renames_everywhere(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    made = key_of(tenant_a, account)
    edited = edit_service_account(
        context=tenant_a.context,
        service_account_id=account.pk,
        name="发票读取器",
        description="reads invoices",
        responsible_id=tenant_a.developer.user.id,
    )
    assert (edited.pk, edited.responsible_id) == (account.pk, tenant_a.developer.user.id)
    assert caller(made.token).user_id == account.pk
    assert User.everyone.get(pk=account.pk).label == "发票读取器"


def test_set_quota_of_a_service_account_and_of_a_strangers(
    tenant_a: Organisation, tenant_b: Organisation, account: ServiceAccount
) -> None:
    quota = set_quota(context=tenant_a.context, user_id=account.pk, requests_day=5)
    with tenant_scope(tenant_a.context):
        assert str(quota) == "Service account Invoice reader"
    with pytest.raises(NotFound):
        set_quota(context=tenant_b.context, user_id=account.pk, requests_day=5)
    retire_service_account(context=tenant_a.context, service_account_id=account.pk)
    with pytest.raises(NotFound):
        set_quota(context=tenant_a.context, user_id=account.pk, requests_day=6)


# Who may.


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER, TenantRole.AUDITOR])
def test_manage_by_anybody_but_an_owner_is_forbidden(
    tenant_a: Organisation, account: ServiceAccount, role: TenantRole
) -> None:
    context: Any = tenant_a.member(role).context
    named = {"context": context, "service_account_id": account.pk}
    for verb in (
        lambda: create_service_account(context=context, name="x"),
        lambda: edit_service_account(**named, name="x"),
        lambda: disable_service_account(**named, reason="x"),
        lambda: enable_service_account(**named, reason="x"),
        lambda: retire_service_account(**named),
        lambda: create_api_key(
            context=context, name="x", scopes=["inference"], service_account_id=account.pk
        ),
    ):
        with pytest.raises(Forbidden):
            verb()


def test_make_keys_with_a_service_accounts_own_key_is_forbidden(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    context = caller(key_of(tenant_a, account, ("keys:write", "inference")).token)
    for owner in (None, account.pk):
        with pytest.raises(Forbidden):
            create_api_key(
                context=context, name="x", scopes=["inference"], service_account_id=owner
            )


def test_rotate_by_a_developer_is_forbidden_and_by_an_owner_keeps_the_holder(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    key = key_of(tenant_a, account).api_key
    with pytest.raises(Forbidden):
        rotate_api_key(context=tenant_a.developer.context, api_key_id=key.pk)
    rotated = rotate_api_key(context=tenant_a.context, api_key_id=key.pk)
    assert caller(rotated.token).user_id == account.pk


# Names.


def test_create_with_a_name_that_another_tenant_has_tells_nothing(
    tenant_a: Organisation, tenant_b: Organisation, account: ServiceAccount
) -> None:
    other = create_service_account(context=tenant_b.context, name=account.name)
    assert other.user.email != account.user.email
    assert account.name.split()[0].lower() not in account.user.email
    with pytest.raises(Conflict) as refusal:
        create_service_account(context=tenant_a.context, name=account.name.upper())
    assert refusal.value.param == "name"


def test_rename_to_a_taken_name_is_a_conflict_and_changes_nothing(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    other = create_service_account(context=tenant_a.context, name="Other")
    with pytest.raises(Conflict):
        edit_service_account(
            context=tenant_a.context, service_account_id=other.pk, name=account.name
        )
    assert User.everyone.get(pk=other.pk).label == "Other"


@pytest.mark.parametrize("name", ["", " ", "a" * 81, "owner@example.test", "a\nb"])
def test_create_with_a_bad_name_is_invalid(tenant_a: Organisation, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        create_service_account(context=tenant_a.context, name=name)
    assert refusal.value.param == "name"


def test_name_somebody_of_another_tenant_responsible_is_invalid(
    tenant_a: Organisation, tenant_b: Organisation, account: ServiceAccount
) -> None:
    for wrong in (tenant_b.owner.user.id, account.pk):
        with pytest.raises(Invalid) as refusal:
            create_service_account(context=tenant_a.context, name="x", responsible_id=wrong)
        assert refusal.value.param == "responsible_id"


# No way in.


def test_log_in_as_a_service_account_is_refused_by_every_path(account: ServiceAccount) -> None:
    user = User.everyone.get(pk=account.pk)
    for password in ("", "!", user.password, "correct horse battery"):
        assert authenticate(username=user.email, password=password) is None
        answer = Client().post(
            "/admin/login/", {"username": user.email, "password": password}, follow=False
        )
        assert answer.status_code == 200
    client = Client()
    client.force_login(user)
    assert client.session[SESSION_KEY] == str(user.pk)
    assert client.session[HASH_SESSION_KEY]
    assert client.get("/admin/").status_code == 302
    assert client.get("/api/v1/tenants").status_code == 401


def test_reset_password_give_role_or_reactivate_finds_no_such_user(
    account: ServiceAccount, security_admin: Context
) -> None:
    for change in (
        lambda: reset_password(context=security_admin, user_id=account.pk),
        lambda: set_platform_role(
            context=security_admin, user_id=account.pk, platform_role=PlatformRole.AUDIT
        ),
        lambda: deactivate_user(context=security_admin, user_id=account.pk, reason="x"),
        lambda: reactivate_user(context=security_admin, user_id=account.pk, reason="x"),
    ):
        with pytest.raises(NotFound):
            change()


def test_join_or_create_by_its_address_is_the_same_refusal_as_for_none(
    tenant_b: Organisation, account: ServiceAccount
) -> None:
    answers = set()
    for address in (account.user.email, account.user.email.upper(), "nobody@service.invalid"):
        for verb in (
            lambda email=address: add_member(
                context=tenant_b.context, email=email, role=TenantRole.VIEWER
            ),
            lambda email=address: create_user(context=TESTS, email=email),
        ):
            with pytest.raises(Invalid) as refusal:
                verb()
            answers.add(refusal.value.message)
    assert answers == {"'email' is not an e-mail address."}


@pytest.mark.parametrize(
    "change",
    [
        "password = 'pbkdf2_sha256$1$a$b'",
        "platform_role = 'audit'",
        "email = 'a@example.test'",
        "kind = 'person'",
    ],
)
def test_database_refuses_a_service_account_that_could_log_in(
    account: ServiceAccount, owner_sql: psycopg.Connection, change: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        owner_sql.execute(
            f"UPDATE tenants_user SET {change} WHERE id = %s",
            [account.pk],
        )


def test_database_refuses_a_membership_and_a_foreign_key_of_it(
    tenant_a: Organisation, tenant_b: Organisation, account: ServiceAccount
) -> None:
    for home in (tenant_a, tenant_b):
        with pytest.raises(IntegrityError), tenant_scope(home.context):
            Membership.objects.create(tenant=home.tenant, user=account.user, role=TenantRole.VIEWER)
    key = key_of(tenant_a, account).api_key
    key.pk, key.public_id, key.tenant_id = UUID(int=key.pk.int + 1), unique("k")[-16:], tenant_b.id
    with pytest.raises(IntegrityError), tenant_scope(tenant_b.context):
        key.save(force_insert=True)


def test_database_refuses_a_person_with_a_service_accounts_address(database: None) -> None:
    user = User(email=f"{unique('x')}@service.invalid", password=make_password("x"))
    with pytest.raises(IntegrityError), bare_scope(TESTS):
        user.save(force_insert=True)


def test_people_are_listed_and_counted_without_it(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    assert not User.objects.filter(pk=account.pk).exists()
    with tenant_scope(tenant_a.context):
        assert not Membership.objects.filter(user_id=account.pk).exists()
    with platform_scope(TESTS, reason="a test counts members"):
        assert Membership.objects.filter(tenant=tenant_a.tenant).count() == 4


# The trail.


def test_every_change_leaves_an_event_with_its_actor_and_rows(
    tenant_a: Organisation, account: ServiceAccount, owner_sql: psycopg.Connection
) -> None:
    named: Any = {"context": tenant_a.context, "service_account_id": account.pk}
    edit_service_account(**named, name="Renamed")
    disable_service_account(**named, reason="why not")
    enable_service_account(**named, reason="why not")
    retire_service_account(**named)
    found = owner_sql.execute(
        "SELECT action, actor_label, object_label FROM audit_event "
        "WHERE object_id = %s AND category = 'intent' ORDER BY id",
        [str(account.pk)],
    ).fetchall()
    by = tenant_a.owner.user.email
    assert found == [
        ("service_account.create", by, "Invoice reader"),
        ("service_account.edit", by, "Renamed"),
        ("service_account.disable", by, "Renamed"),
        ("service_account.enable", by, "Renamed"),
        ("service_account.retire", by, "Renamed"),
    ]
    rows = owner_sql.execute(
        "SELECT DISTINCT action FROM audit_event WHERE object_id = %s AND category = 'change'",
        [str(account.pk)],
    ).fetchall()
    assert {action for (action,) in rows} >= {
        "tenants.serviceaccount.insert",
        "tenants.serviceaccount.update",
        "tenants.user.insert",
    }
