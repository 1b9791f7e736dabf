"""Members and administrators: the last owner stays, duties stay apart."""

import threading

import psycopg
import pytest
from django.db import connection

from portal.core.actors import Context, PlatformRole, TenantRole
from portal.core.errors import Conflict, Forbidden, NotFound, PortalError
from portal.core.tenancy import tenant_scope
from tenants.errors import InvalidApiKey, LastOwner, SeparatedDuties, UserNotActive
from tenants.identity.keys import authenticate_api_key
from tenants.models import Membership, User
from tenants.services import (
    add_member,
    change_member_role,
    create_api_key,
    create_user,
    deactivate_user,
    reactivate_user,
    remove_member,
    reset_password,
    set_platform_role,
)
from tests.factories import TESTS, Member, Organisation, unique


def membership_of(organisation: Organisation, member: Member) -> Membership:
    with tenant_scope(organisation.context):
        return Membership.objects.get(user=member.user)


def test_add_member_twice_is_a_conflict(tenant_a: Organisation) -> None:
    with pytest.raises(Conflict) as refusal:
        add_member(
            context=tenant_a.context,
            email=tenant_a.viewer.user.email,
            role=TenantRole.DEVELOPER,
        )
    assert refusal.value.param == "email"


def test_add_member_of_another_tenant_keeps_the_account(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    added = add_member(
        context=tenant_a.context, email=tenant_b.viewer.user.email, role=TenantRole.VIEWER
    )
    assert added.membership.user == tenant_b.viewer.user
    assert added.password is None


def test_add_member_who_administers_the_platform_is_refused(
    tenant_a: Organisation, system_admin: Context
) -> None:
    with pytest.raises(SeparatedDuties):
        add_member(
            context=tenant_a.context, email=system_admin.actor.label, role=TenantRole.AUDITOR
        )


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER, TenantRole.AUDITOR])
def test_add_member_by_anybody_but_an_owner_is_forbidden(
    tenant_a: Organisation, role: TenantRole
) -> None:
    with pytest.raises(Forbidden):
        add_member(
            context=tenant_a.member(role).context, email="x@example.test", role=TenantRole.OWNER
        )


def test_change_role_of_the_last_owner_is_refused(tenant_a: Organisation) -> None:
    owner = membership_of(tenant_a, tenant_a.owner)
    with pytest.raises(LastOwner):
        change_member_role(context=tenant_a.context, membership_id=owner.id, role=TenantRole.VIEWER)
    assert membership_of(tenant_a, tenant_a.owner).role == TenantRole.OWNER


def test_remove_last_owner_is_refused_and_one_of_two_is_not(tenant_a: Organisation) -> None:
    owner = membership_of(tenant_a, tenant_a.owner)
    with pytest.raises(LastOwner):
        remove_member(context=tenant_a.context, membership_id=owner.id)
    second = membership_of(tenant_a, tenant_a.developer)
    change_member_role(context=tenant_a.context, membership_id=second.id, role=TenantRole.OWNER)
    assert remove_member(context=tenant_a.context, membership_id=owner.id) == tenant_a.owner.user


def test_remove_two_owners_at_once_leaves_one(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    first = membership_of(tenant_a, tenant_a.owner)
    second = membership_of(tenant_a, tenant_a.developer)
    change_member_role(context=tenant_a.context, membership_id=second.id, role=TenantRole.OWNER)
    begin = threading.Barrier(2)
    refusals: list[PortalError] = []

    def remove(membership: Membership) -> None:
        try:
            begin.wait(10)
            remove_member(context=tenant_a.context, membership_id=membership.id)
        except PortalError as refusal:
            refusals.append(refusal)
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=[m]) for m in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [type(refusal) for refusal in refusals] == [LastOwner]
    owners = owner_sql.execute(
        "SELECT count(*) FROM tenants_membership WHERE tenant_id = %s AND role = 'owner'",
        [tenant_a.id],
    ).fetchone()
    assert owners == (1,)


def test_remove_member_revokes_the_keys_made_here(tenant_a: Organisation) -> None:
    made = create_api_key(context=tenant_a.developer.context, name="own", scopes=["inference"])
    membership = membership_of(tenant_a, tenant_a.developer)
    remove_member(context=tenant_a.context, membership_id=membership.id)
    with pytest.raises(InvalidApiKey):
        authenticate_api_key(made.token, base=TESTS)


def test_change_role_in_another_tenant_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    stranger = membership_of(tenant_b, tenant_b.viewer)
    with pytest.raises(NotFound):
        change_member_role(
            context=tenant_a.context, membership_id=stranger.id, role=TenantRole.OWNER
        )
    assert membership_of(tenant_b, tenant_b.viewer).role == TenantRole.VIEWER


def test_manage_members_without_a_tenant_asks_to_choose_one(system_admin: Context) -> None:
    with pytest.raises(Forbidden) as refusal:
        add_member(context=system_admin, email="x@example.test", role=TenantRole.VIEWER)
    assert refusal.value.error_code == "no_tenant"


def test_deactivate_user_shuts_out_keys_until_reactivated(
    security_admin: Context, tenant_a: Organisation
) -> None:
    made = create_api_key(context=tenant_a.context, name="till", scopes=["inference"])
    user_id = tenant_a.owner.user.id
    deactivate_user(context=security_admin, user_id=user_id, reason="left")
    with pytest.raises(UserNotActive):
        authenticate_api_key(made.token, base=TESTS)
    reactivate_user(context=security_admin, user_id=user_id, reason="came back")
    assert authenticate_api_key(made.token, base=TESTS).user_id == user_id


def test_administer_own_account_is_forbidden(security_admin: Context) -> None:
    assert security_admin.user_id is not None
    own = security_admin.user_id
    with pytest.raises(Forbidden):
        set_platform_role(context=security_admin, user_id=own, platform_role=PlatformRole.SYSTEM)
    with pytest.raises(Forbidden):
        deactivate_user(context=security_admin, user_id=own, reason="x")
    with pytest.raises(Forbidden):
        reset_password(context=security_admin, user_id=own)


def test_set_platform_role_of_a_member_is_refused(
    security_admin: Context, tenant_a: Organisation
) -> None:
    with pytest.raises(SeparatedDuties):
        set_platform_role(
            context=security_admin,
            user_id=tenant_a.viewer.user.id,
            platform_role=PlatformRole.AUDIT,
        )


def test_set_platform_role_replaces_the_one_before(security_admin: Context) -> None:
    made = create_user(
        context=security_admin,
        email=f"{unique('admin')}@example.test",
        platform_role=PlatformRole.SYSTEM,
    )
    changed = set_platform_role(
        context=security_admin, user_id=made.user.id, platform_role=PlatformRole.AUDIT
    )
    assert User.objects.get(pk=changed.pk).platform_role == PlatformRole.AUDIT


def test_create_administrator_by_the_system_administrator_is_forbidden(
    system_admin: Context,
) -> None:
    with pytest.raises(Forbidden):
        create_user(
            context=system_admin,
            email=f"{unique('x')}@example.test",
            platform_role=PlatformRole.AUDIT,
        )


def test_reset_password_replaces_it_and_never_records_it(
    security_admin: Context, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    person = tenant_a.viewer
    reset = reset_password(context=security_admin, user_id=person.user.id)
    account = User.objects.get(pk=person.user.pk)
    assert reset.password is not None
    assert account.check_password(reset.password)
    assert not account.check_password(person.password)
    told = owner_sql.execute(
        "SELECT coalesce(before::text, '') || coalesce(after::text, '') FROM audit_body b "
        "JOIN audit_event e ON e.id = b.event_id WHERE e.object_id = %s",
        [str(person.user.id)],
    ).fetchall()
    assert told
    assert not any("scrypt$" in text for (text,) in told)
