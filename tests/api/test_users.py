"""People on the management API: who sees and changes whose account."""

import psycopg
import pytest

from portal.core.actors import PlatformRole, TenantRole
from portal.core.ids import uuid7
from tenants.models import User
from tenants.services import add_member
from tests import factories
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation, api_key, unique


@pytest.fixture
def security(database: None) -> Caller:
    return session_caller(factories.administrator(PlatformRole.SECURITY).user)


@pytest.fixture
def system(database: None) -> Caller:
    return session_caller(factories.administrator(PlatformRole.SYSTEM).user)


def logs_in(email: str, password: str) -> bool:
    return bool(Caller().client.login(username=email, password=password))


def events(superuser: psycopg.Connection, user_id: str) -> list[tuple[str, str, str]]:
    """Action, outcome and reason of what the trail says was done to an account."""
    return superuser.execute(
        "SELECT action, outcome, reason FROM audit_event WHERE object_id = %s "
        "AND action LIKE 'user.%%' ORDER BY recorded_at, id",
        [user_id],
    ).fetchall()


# -- what a tenant sees --------------------------------------------------------------------------


def test_list_users_of_a_tenant_shows_its_members_alone(
    tenant_a: Organisation, tenant_b: Organisation, owner: Caller
) -> None:
    for caller in (owner, key_caller(api_key(tenant_a, scopes=["members:read"]).token)):
        listed = caller.get("users").json()["items"]
        assert {user["email"] for user in listed} == {
            tenant_a.member(role).user.email for role in TenantRole
        }
        assert set(listed[0]) == {"id", "email", "full_name", "active"}


def test_find_user_by_address_finds_none_of_another_tenant(
    tenant_a: Organisation, tenant_b: Organisation, owner: Caller, system: Caller
) -> None:
    own, other = tenant_a.viewer.user, tenant_b.viewer.user
    assert [u["id"] for u in owner.get(f"users?email={own.email.upper()}").json()["items"]] == [
        str(own.id)
    ]
    assert owner.get(f"users?email={other.email}").json()["items"] == []
    assert [u["id"] for u in system.get(f"users?email={other.email}").json()["items"]] == [
        str(other.id)
    ]


def test_read_user_of_a_tenant_tells_nothing_of_the_persons_other_tenants(
    tenant_a: Organisation, tenant_b: Organisation, owner: Caller, system: Caller
) -> None:
    person = tenant_a.viewer.user
    add_member(context=tenant_b.context, email=person.email, role=TenantRole.AUDITOR)
    assert logs_in(person.email, tenant_a.viewer.password)
    seen = owner.get(f"users/{person.id}").json()
    assert [(m["tenant_id"], m["role"]) for m in seen["memberships"]] == [
        (str(tenant_a.id), "viewer")
    ]
    assert (seen["platform_role"], seen["last_login"], seen["created_at"]) == (None, None, None)
    assert tenant_b.tenant.name not in str(seen)
    whole = system.get(f"users/{person.id}").json()
    assert {m["tenant_id"] for m in whole["memberships"]} == {str(tenant_a.id), str(tenant_b.id)}
    assert whole["last_login"] is not None
    assert whole["created_at"] is not None


def test_read_user_of_another_tenant_is_as_if_there_were_none(
    tenant_b: Organisation, owner: Caller
) -> None:
    there = owner.get(f"users/{tenant_b.viewer.user.id}")
    nowhere = owner.get(f"users/{uuid7()}")
    assert (there.status_code, there.json()["code"]) == (404, "not_found")
    assert there.json()["detail"] == nowhere.json()["detail"]


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER, TenantRole.AUDITOR])
def test_list_users_by_a_member_who_may_not_see_members_is_denied(
    tenant_a: Organisation, role: TenantRole
) -> None:
    assert session_caller(tenant_a.member(role).user).get("users").status_code == 403


# -- what the platform does ----------------------------------------------------------------------


def test_create_user_then_log_in_with_the_password_shown_once(
    system: Caller, owner_sql: psycopg.Connection
) -> None:
    email = f"{unique('new')}@example.test"
    made = system.post("users", {"email": email, "full_name": "New Person"})
    assert made.status_code == 201
    body = made.json()
    assert body["user"]["active"] is True
    assert logs_in(email, body["password"])
    user_id = body["user"]["id"]
    assert body["password"] not in system.get(f"users/{user_id}").content.decode()
    assert [(action, outcome) for action, outcome, _ in events(owner_sql, user_id)] == [
        ("user.create", "success")
    ]
    again = system.post("users", {"email": email.upper()})
    assert (again.status_code, again.json()["param"]) == (409, "email")


def test_create_administrator_is_the_security_administrators_to_do(
    system: Caller, security: Caller
) -> None:
    body = {"email": f"{unique('admin')}@example.test", "platform_role": "audit"}
    assert system.post("users", body).status_code == 403
    assert not User.objects.filter(email=body["email"]).exists()
    made = security.post("users", body)
    assert made.status_code == 201
    read = security.get(f"users/{made.json()['user']['id']}").json()
    assert (read["platform_role"], read["memberships"]) == ("audit", [])


def test_set_and_take_platform_role(security: Caller, owner_sql: psycopg.Connection) -> None:
    person = factories.administrator(PlatformRole.SYSTEM).user
    path = f"users/{person.id}"
    assert security.call("PATCH", path, {"platform_role": "audit"}).json()["platform_role"] == (
        "audit"
    )
    assert security.call("PATCH", path, {"platform_role": None}).json()["platform_role"] is None
    assert security.call("PATCH", path, {}).status_code == 400
    assert security.call("PATCH", path, {"platform_role": "root"}).status_code == 400
    done = [event for event in events(owner_sql, str(person.id)) if event[0] == "user.set_role"]
    assert len(done) == 2


def test_make_a_member_administrator_is_a_conflict(
    security: Caller, tenant_a: Organisation
) -> None:
    path = f"users/{tenant_a.viewer.user.id}"
    refused = security.call("PATCH", path, {"platform_role": "system"})
    assert (refused.status_code, refused.json()["code"]) == (409, "separated_duties")


def test_deactivate_user_ends_sessions_and_keys_until_reactivated(
    security: Caller, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    person = tenant_a.owner.user
    session, key = session_caller(person), key_caller(api_key(tenant_a, scopes=["keys:read"]).token)
    assert (session.get("keys").status_code, key.get("keys").status_code) == (200, 200)
    done = security.post(f"users/{person.id}/deactivate", {"reason": "left"})
    assert done.json()["active"] is False
    assert session.get("keys").status_code == 401
    assert key.get("keys").json()["code"] == "user_not_active"
    back = security.post(f"users/{person.id}/reactivate", {"reason": "came back"})
    assert back.json()["active"] is True
    assert key.get("keys").status_code == 200
    assert events(owner_sql, str(person.id))[-2:] == [
        ("user.deactivate", "success", "left"),
        ("user.reactivate", "success", "came back"),
    ]


def test_reset_password_replaces_the_old_one(security: Caller, tenant_a: Organisation) -> None:
    person = tenant_a.developer
    renewed = security.post(f"users/{person.user.id}/reset-password", None).json()
    assert renewed["user"]["email"] == person.user.email
    assert not logs_in(person.user.email, person.password)
    assert logs_in(person.user.email, renewed["password"])


@pytest.mark.parametrize("verb", ["deactivate", "reactivate", "reset-password"])
def test_do_it_to_the_own_account_is_refused(verb: str) -> None:
    own = factories.administrator(PlatformRole.SECURITY).user
    refused = session_caller(own).post(f"users/{own.id}/{verb}", {"reason": "a test"})
    assert (refused.status_code, refused.json()["code"]) == (403, "own_account")


# -- what a key does -----------------------------------------------------------------------------


def test_manage_members_by_key(tenant_a: Organisation) -> None:
    caller = key_caller(api_key(tenant_a, scopes=["members:write"]).token)
    email = f"{unique('new')}@example.test"
    added = caller.post("members", {"email": email, "role": "viewer"})
    assert added.status_code == 201
    path = f"members/{added.json()['member']['id']}"
    assert caller.call("PATCH", path, {"role": "developer"}).json()["role"] == "developer"
    assert caller.call("DELETE", path).status_code == 204
    assert caller.get(path).status_code == 404


def test_touch_owners_by_key_is_refused(tenant_a: Organisation) -> None:
    caller = key_caller(api_key(tenant_a, scopes=["members:write"]).token)
    members = {m["role"]: f"members/{m['id']}" for m in caller.get("members").json()["items"]}
    email = f"{unique('new')}@example.test"
    refusals = [
        caller.post("members", {"email": email, "role": "owner"}),
        caller.call("PATCH", members["viewer"], {"role": "owner"}),
        caller.call("PATCH", members["owner"], {"role": "viewer"}),
        caller.call("DELETE", members["owner"]),
    ]
    assert [(r.status_code, r.json()["code"]) for r in refusals] == [(403, "owner_by_key")] * 4
    assert not User.objects.filter(email=email).exists()
    after = {m["role"]: f"members/{m['id']}" for m in caller.get("members").json()["items"]}
    assert after == members


def test_change_members_by_key_that_may_only_read_is_denied(tenant_a: Organisation) -> None:
    caller = key_caller(api_key(tenant_a, scopes=["members:read"]).token)
    email = f"{unique('new')}@example.test"
    assert caller.post("members", {"email": email, "role": "viewer"}).status_code == 403
    assert caller.get("members").status_code == 200
