"""What works in each state of a tenant, over real calls; docs/operations.md has the same table."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest

from portal.core.actors import PlatformRole, TenantRole
from tenants.services import suspend_tenant
from tests import factories
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation
from tests.live import LivePortal
from tests.tenants.closings import close, finish, finished_export


def _active(tenant: Organisation) -> None:
    return None


def _suspended(tenant: Organisation) -> None:
    suspend_tenant(context=factories.TESTS, tenant_id=tenant.id, reason="unpaid")


def _closing(tenant: Organisation) -> None:
    close(tenant, grace_days=30)


def _closed(tenant: Organisation) -> None:
    close(tenant)
    finish(tenant.id)


@dataclass(frozen=True)
class Expected:
    """What a state lets through: HTTP status of each kind of call.

    ``members`` are the roles that the tenant is open to, ``writes`` those of them that may
    still make a key, ``export`` whether the system administrator may ask for one.
    """

    enter_state: Callable[[Organisation], None]
    call: int
    key_api: int
    members: frozenset[TenantRole]
    writes: int
    export: int
    administrator_writes: int


ALL = frozenset(TenantRole)
READERS = frozenset({TenantRole.OWNER, TenantRole.AUDITOR})
TABLE = {
    "active": Expected(_active, 200, 200, ALL, 201, 202, 201),
    "suspended": Expected(_suspended, 403, 403, frozenset(), 403, 202, 201),
    "closing": Expected(_closing, 401, 401, READERS, 403, 202, 403),
    "closed": Expected(_closed, 401, 401, frozenset(), 403, 409, 403),
}


@pytest.mark.parametrize("state", TABLE)
def test_call_in_each_state_follows_the_table(
    live_portal: LivePortal, tenant_a: Organisation, state: str
) -> None:
    expected = TABLE[state]
    token = factories.api_key(tenant_a, scopes=["inference", "tenant:read"]).token
    system = factories.administrator(PlatformRole.SYSTEM).user
    auditor = factories.administrator(PlatformRole.AUDIT).user
    before = session_caller(tenant_a.owner.user)
    expected.enter_state(tenant_a)

    assert _generate(live_portal, token) == expected.call
    assert key_caller(token).get("tenants").status_code == expected.key_api
    # A session that was open before is let in or not like a new one.
    for role in TenantRole:
        user = tenant_a.member(role).user
        seen = session_caller(user).get(f"tenants/{tenant_a.id}").status_code
        assert (role, seen) == (role, 200 if role in expected.members else 403)
    owner = before if TenantRole.OWNER in expected.members else session_caller(tenant_a.owner.user)
    made = owner.post("keys", {"name": "new", "scopes": ["inference"]})
    assert made.status_code == expected.writes
    _reads_of_the_platform(tenant_a, session_caller(system), session_caller(auditor), state)
    inside = session_caller(system, tenant_a.id)
    assert inside.get("usage").status_code == 200
    asked = inside.post(f"tenants/{tenant_a.id}/export", {})
    assert asked.status_code == expected.export
    added = inside.post("members", {"email": f"new@{tenant_a.tenant.slug}.example.test",
                                    "role": "viewer"})  # fmt: skip
    assert added.status_code == expected.administrator_writes


def _generate(portal: LivePortal, token: str) -> int:
    body = {
        "model": portal.fake.model,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 2,
    }
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(
        f"{portal.base_url}/v1/chat/completions", json=body, headers=headers, timeout=60
    ).status_code


def _reads_of_the_platform(
    tenant: Organisation, system: Caller, auditor: Caller, state: str
) -> None:
    """In every state the administrators see the tenant, and auditors read its trail."""
    found = system.get(f"tenants/{tenant.id}")
    assert (found.status_code, found.json()["state"]) == (200, state)
    trail = auditor.get(f"audit/events?tenant_id={tenant.id}&limit=5")
    assert trail.status_code == 200
    assert {event["tenant_id"] for event in trail.json()["items"]} == {str(tenant.id)}
    certificate = auditor.get(f"tenants/{tenant.id}/certificate")
    assert certificate.status_code == (200 if state == "closed" else 404)


def test_log_in_after_the_only_tenant_was_closed_shows_that_there_is_none(
    tenant_a: Organisation,
) -> None:
    _closed(tenant_a)
    client = session_caller(tenant_a.owner.user).client
    page = client.get("/admin/", follow=True)
    assert page.status_code == 200
    assert page.redirect_chain[-1][0] == "/admin/memberships/"
    assert "You belong to no tenant" in page.content.decode()


def test_close_over_the_api_follows_the_whole_way(tenant_a: Organisation) -> None:
    system = session_caller(factories.administrator(PlatformRole.SYSTEM).user)
    path, name = f"tenants/{tenant_a.id}", tenant_a.tenant.name
    wrong = system.post(f"{path}/close", {"name": "x", "reason": "over"})
    assert (wrong.status_code, wrong.json()["param"]) == (400, "name")
    body = {"name": name, "reason": "over", "grace_days": 3}
    assert system.post(f"{path}/close", body).json()["state"] == "closing"
    assert system.post(f"{path}/close", body).status_code == 409
    assert system.post(f"{path}/reopen", {"reason": "no"}).json()["state"] == "active"
    assert system.get(f"{path}/closure").json()["closure"]["state"] == "reopened"
    assert system.post(f"{path}/close", body | {"grace_days": 0}).status_code == 200
    finish(tenant_a.id)
    progress = system.get(f"{path}/closure").json()
    assert progress["closure"]["state"] == "closed"
    assert len(progress["steps"]) == progress["steps_total"]
    certificate = system.get(f"{path}/certificate").json()
    assert certificate["certificate"]["tenant"]["name"] == name


def test_export_over_the_api_is_asked_for_watched_and_fetched(tenant_a: Organisation) -> None:
    owner = session_caller(tenant_a.owner.user)
    path = f"tenants/{tenant_a.id}/export"
    assert owner.get(path).status_code == 404
    asked = owner.post(path, {})
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
    finished_export(tenant_a.context, tenant_a.id, UUID(asked.json()["id"]))
    ready = owner.get(path).json()
    assert (ready["state"], ready["percent"]) == ("ready", 100)
    file = owner.get(f"{path}/file")
    assert file["Content-Type"] == "application/zip"
    content = b"".join(file)
    assert hashlib.sha256(content).hexdigest() == ready["sha256"]
