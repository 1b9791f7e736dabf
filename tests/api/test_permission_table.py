"""Every route of the management API, run by every kind of caller."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

from portal.core.ids import uuid7
from portal.urls import api_patterns
from tests.api.callers import Caller
from tests.factories import Organisation

PEOPLE = {"owner", "developer", "viewer", "auditor"}
SYSTEM, SECURITY, AUDIT = (f"{role} administrator" for role in ("system", "security", "audit"))
EVERYBODY = {
    *PEOPLE,
    SYSTEM,
    SECURITY,
    AUDIT,
    *(
        f"key {scope}"
        for scope in (
            "inference",
            "tenant:read",
            "members:read",
            "members:write",
            "keys:read",
            "keys:write",
            "jobs:read",
            "knowledge:read",
            "knowledge:write",
            "apps",
            "apps:read",
            "apps:write",
            "events",
            "audit:read",
        )
    ),
}


@dataclass(frozen=True)
class Row:
    """A route, what is sent (never valid, so that nothing changes), and who is let in."""

    method: str
    path: str
    allowed: set[str]
    body: Any = None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


READ_TENANT = {*PEOPLE, SYSTEM, SECURITY, AUDIT, "key tenant:read"}
READ_KEYS = {"owner", "developer", "viewer", SYSTEM, SECURITY, "key keys:read", "key keys:write"}
READ_AUDIT = {"auditor", AUDIT, "key audit:read"}
READ_JOBS = {*PEOPLE, SYSTEM, "key jobs:read"}
# Of its own jobs alone, of which there is none here.
FOLLOW_JOBS = {*READ_JOBS, "key inference"}
SEND_WEBHOOKS = {"owner", "developer", "key inference"}
READ_WEBHOOKS = {"owner", "developer", "key jobs:read"}
READ_KNOWLEDGE = {"owner", "developer", "viewer", "key knowledge:read", "key knowledge:write"}
RETRIEVE = {"owner", "developer", "key knowledge:read", "key knowledge:write"}
EDIT_KNOWLEDGE = {"owner", "developer", "key knowledge:write"}
READ_APPS = {"owner", "developer", "viewer", "key apps:read", "key apps:write"}
EDIT_APPS = {"owner", "developer", "key apps:write"}
CALL_APPS = {"owner", "developer", "key apps", "key apps:write"}
EDIT_KEYS = {"owner", "developer", "key keys:write"}
READ_MEMBERS = {"owner", SYSTEM, SECURITY, "key members:read", "key members:write"}
EDIT_MEMBERS = {"owner", SYSTEM, "key members:write"}
REVOKE = {"owner", "developer", SECURITY, "key keys:write"}

TABLE = [
    Row("GET", "tenants", READ_TENANT),
    Row("POST", "tenants", {SYSTEM}, {}),
    Row("GET", "tenants/{id}", READ_TENANT),
    Row("PATCH", "tenants/{id}", {SYSTEM}, {}),
    Row("POST", "tenants/{id}/suspend", {SYSTEM}, {}),
    Row("POST", "tenants/{id}/resume", {SYSTEM}, {}),
    Row("POST", "tenants/{id}/close", {SYSTEM}, {}),
    Row("POST", "tenants/{id}/reopen", {SYSTEM}, {}),
    Row("GET", "tenants/{id}/closure", READ_TENANT),
    Row("GET", "tenants/{id}/export", {"owner", SYSTEM}),
    Row("POST", "tenants/{id}/export", {"owner", SYSTEM}),
    Row("GET", "tenants/{id}/export/file", {"owner", SYSTEM}),
    Row("GET", "tenants/{id}/certificate", READ_TENANT),
    Row("GET", "members", READ_MEMBERS),
    Row("POST", "members", EDIT_MEMBERS, {}),
    Row("GET", "members/{id}", READ_MEMBERS),
    Row("PATCH", "members/{id}", EDIT_MEMBERS, {}),
    Row("DELETE", "members/{id}", EDIT_MEMBERS),
    Row("GET", "users", READ_MEMBERS),
    Row("POST", "users", {SYSTEM, SECURITY}, {}),
    Row("GET", "users/{id}", READ_MEMBERS),
    Row("PATCH", "users/{id}", {SECURITY}, {}),
    Row("POST", "users/{id}/deactivate", {SECURITY}, {}),
    Row("POST", "users/{id}/reactivate", {SECURITY}, {}),
    Row("POST", "users/{id}/reset-password", {SECURITY}, {}),
    Row("GET", "service-accounts", READ_KEYS),
    Row("POST", "service-accounts", {"owner"}, {}),
    Row("GET", "service-accounts/{id}", READ_KEYS),
    Row("PATCH", "service-accounts/{id}", {"owner"}, {}),
    Row("DELETE", "service-accounts/{id}", {"owner"}),
    Row("POST", "service-accounts/{id}/disable", {"owner"}, {}),
    Row("POST", "service-accounts/{id}/enable", {"owner"}, {}),
    Row("GET", "keys", READ_KEYS),
    Row("POST", "keys", {"owner", "developer", "key keys:write"}, {}),
    Row("GET", "keys/{id}", READ_KEYS),
    Row("PATCH", "keys/{id}", EDIT_KEYS, {}),
    Row("POST", "keys/{id}/rotate", EDIT_KEYS, {"overlap_seconds": -1}),
    Row("POST", "keys/{id}/revoke", REVOKE, {}),
    Row("GET", "quotas", {"owner", "developer", "viewer", SYSTEM, "key tenant:read"}),
    Row("PUT", "quotas", {"owner", SYSTEM}, {"tokens_day": "many"}),
    Row("GET", "quotas/{id}", {"owner", "developer", "viewer", SYSTEM, "key tenant:read"}),
    Row("PATCH", "quotas/{id}", {"owner", SYSTEM}, {"tokens_day": "many"}),
    Row("DELETE", "quotas/{id}", {"owner", SYSTEM}),
    Row("GET", "connections", {"owner", "developer", "viewer", SYSTEM}),
    Row("POST", "connections", {"owner", SYSTEM}, {}),
    Row("GET", "connections/{id}", {"owner", "developer", "viewer", SYSTEM}),
    Row("PATCH", "connections/{id}", {"owner", SYSTEM}, {}),
    Row("DELETE", "connections/{id}", {"owner", SYSTEM}),
    Row("POST", "connections/{id}/check", {"owner", SYSTEM}, {}),
    Row("POST", "connections/{id}/share", {SYSTEM}, {}),
    Row("GET", "connections/{id}/sync", {"owner", "developer", "viewer", SYSTEM}),
    Row("POST", "connections/{id}/sync", EDIT_KNOWLEDGE, {}),
    Row("PATCH", "connections/{id}/sync", {"owner", SYSTEM}, {}),
    Row("GET", "connections/{id}/plan", {"owner", "developer", "viewer", SYSTEM}),
    Row("GET", "connections/{id}/objects", {"owner", "developer", "viewer", SYSTEM}),
    Row("POST", "remote-objects/{id}/decide", EDIT_KNOWLEDGE, {}),
    Row("GET", "deletion-receipts", {"owner", "developer", "viewer", SYSTEM}),
    Row("POST", "connections/{id}/licence", {SYSTEM}, {}),
    Row("POST", "connections/{id}/workspaces", {SYSTEM}, {}),
    Row("GET", "quota-defaults", {"owner", "developer", "viewer", SYSTEM, "key tenant:read"}),
    Row("PUT", "quota-defaults", {"owner"}, {}),
    Row("GET", "quota-defaults/{id}", {"owner", "developer", "viewer", SYSTEM, "key tenant:read"}),
    Row("PATCH", "quota-defaults/{id}", {"owner"}, {"tokens_day": "many"}),
    Row("DELETE", "quota-defaults/{id}", {"owner"}),
    Row("GET", "usage", {"owner", "developer", "viewer", SYSTEM, "key tenant:read"}),
    Row("GET", "jobs", READ_JOBS),
    Row("POST", "jobs", {"key inference"}, {}),
    Row("GET", "jobs/{id}", FOLLOW_JOBS),
    Row("GET", "jobs/{id}/events", FOLLOW_JOBS),
    Row("GET", "jobs/{id}/result", {"key inference"}),
    Row("POST", "jobs/{id}/cancel", {"owner", "key inference"}),
    Row("GET", "webhooks/deliveries", READ_WEBHOOKS),
    Row("GET", "webhooks/deliveries/{id}", READ_WEBHOOKS),
    Row("POST", "webhooks/deliveries/{id}/redeliver", SEND_WEBHOOKS, {}),
    Row("POST", "webhooks/test", SEND_WEBHOOKS, {}),
    Row("GET", "webhooks/secret", READ_WEBHOOKS),
    Row("POST", "webhooks/secret", {"owner"}, {"overlap_seconds": -1}),
    Row("GET", "batches", READ_JOBS),
    Row("GET", "batches/{id}", READ_JOBS),
    Row("GET", "models", {"owner", "developer", "viewer", SYSTEM, "key inference"}),
    Row("GET", "models/{id}", {SYSTEM}),
    Row("PATCH", "models/{id}", {SYSTEM}, {}),
    Row("GET", "model-versions", {SYSTEM}),
    Row("POST", "model-versions", {SYSTEM}, {}),
    Row("GET", "model-versions/{id}", {SYSTEM}),
    Row("GET", "model-versions/{id}/check", {SYSTEM}),
    Row("POST", "model-versions/{id}/check", {SYSTEM}, {}),
    Row("GET", "model-versions/{id}/prices", {SYSTEM}),
    Row("POST", "model-versions/{id}/prices", {SYSTEM}, {}),
    Row("GET", "deployments", {SYSTEM}),
    Row("POST", "deployments", {SYSTEM}, {}),
    Row("GET", "deployments/{id}", {SYSTEM}),
    Row("PATCH", "deployments/{id}", {SYSTEM}, {}),
    Row("DELETE", "deployments/{id}", {SYSTEM}),
    Row("POST", "deployments/{id}/enable", {SYSTEM}, {}),
    Row("POST", "deployments/{id}/disable", {SYSTEM}, {}),
    Row("GET", "deployments/{id}/workers", {SYSTEM}),
    Row("POST", "deployments/{id}/orders", {SYSTEM}, {}),
    Row("GET", "workers/{id}", {SYSTEM}),
    Row("POST", "workers/{id}/orders", {SYSTEM}, {}),
    Row("PUT", "models/{id}/quality-gate", {SYSTEM}, {"most_size": 2}),
    Row("GET", "routes", {SYSTEM}),
    Row("POST", "routes", {SYSTEM}, {}),
    Row("GET", "routes/{id}", {SYSTEM}),
    Row("PATCH", "routes/{id}", {SYSTEM}, {"enabled": "maybe"}),
    Row("DELETE", "routes/{id}", {SYSTEM}),
    Row("GET", "routes/{id}/overrides", {SYSTEM}),
    Row("POST", "routes/{id}/overrides", {SYSTEM}, {}),
    Row("DELETE", "route-overrides/{id}", {SYSTEM}),
    Row("GET", "knowledge-bases", READ_KNOWLEDGE),
    Row("POST", "knowledge-bases", EDIT_KNOWLEDGE, {}),
    Row("GET", "knowledge-bases/{id}", READ_KNOWLEDGE),
    Row("PATCH", "knowledge-bases/{id}", EDIT_KNOWLEDGE, {}),
    Row("DELETE", "knowledge-bases/{id}", EDIT_KNOWLEDGE),
    Row("POST", "knowledge-bases/{id}/retrieve", RETRIEVE, {}),
    Row("GET", "knowledge-bases/{id}/documents", READ_KNOWLEDGE),
    Row("POST", "knowledge-bases/{id}/documents", EDIT_KNOWLEDGE, {}),
    Row("POST", "knowledge-bases/{id}/files", EDIT_KNOWLEDGE, {}),
    Row("GET", "knowledge-bases/{id}/sources", READ_KNOWLEDGE),
    Row("POST", "knowledge-bases/{id}/sources", EDIT_KNOWLEDGE, {}),
    Row("GET", "sources/{id}", READ_KNOWLEDGE),
    Row("PATCH", "sources/{id}", EDIT_KNOWLEDGE, {}),
    Row("DELETE", "sources/{id}", EDIT_KNOWLEDGE),
    Row("POST", "sources/{id}/test", EDIT_KNOWLEDGE, {}),
    Row("POST", "sources/{id}/run", EDIT_KNOWLEDGE, {}),
    Row("GET", "sources/{id}/runs", READ_KNOWLEDGE),
    Row("GET", "sources/{id}/refusals", READ_KNOWLEDGE),
    Row("GET", "documents/{id}", READ_KNOWLEDGE),
    Row("PATCH", "documents/{id}", EDIT_KNOWLEDGE, {}),
    Row("DELETE", "documents/{id}", EDIT_KNOWLEDGE),
    Row("POST", "documents/{id}/index", EDIT_KNOWLEDGE),
    Row("GET", "documents/{id}/versions", READ_KNOWLEDGE),
    Row("GET", "documents/{id}/text", READ_KNOWLEDGE),
    Row("GET", "documents/{id}/diff", READ_KNOWLEDGE),
    Row("POST", "external-knowledge/retrieval", RETRIEVE, {}),
    Row("GET", "apps", READ_APPS),
    Row("POST", "apps", EDIT_APPS, {}),
    Row("GET", "apps/{id}", READ_APPS),
    Row("PATCH", "apps/{id}", EDIT_APPS, {}),
    Row("DELETE", "apps/{id}", EDIT_APPS),
    Row("GET", "apps/{id}/versions", READ_APPS),
    Row("POST", "apps/{id}/versions", EDIT_APPS, {}),
    Row("GET", "apps/{id}/diff", READ_APPS),
    Row("POST", "apps/{id}/publish", EDIT_APPS, {}),
    Row("POST", "apps/{id}/withdraw", EDIT_APPS, {}),
    Row("GET", "apps/{id}/deployment", READ_APPS),
    Row("PUT", "apps/{id}/deployment", EDIT_APPS, {}),
    Row("DELETE", "apps/{id}/deployment", EDIT_APPS),
    Row("GET", "apps/{id}/usage", READ_APPS),
    Row("GET", "apps/{id}/parameters", READ_APPS | CALL_APPS),
    Row("GET", "apps/{id}/conversations", CALL_APPS),
    Row("DELETE", "apps/{id}/conversations/{id}", CALL_APPS),
    Row("GET", "apps/{id}/conversations/{id}/messages", CALL_APPS),
    Row("POST", "apps/{id}/messages/{id}/feedback", CALL_APPS, {}),
    Row("POST", "events", {"owner", "developer", "key events"}, {}),
    Row("GET", "scenarios", READ_APPS),
    Row("POST", "scenarios", EDIT_APPS, {}),
    Row("GET", "evaluations", READ_APPS),
    Row("GET", "evaluations/{id}", READ_APPS),
    Row("GET", "triggers", READ_APPS),
    Row("POST", "triggers", EDIT_APPS, {}),
    Row("GET", "triggers/{id}", READ_APPS),
    Row("PATCH", "triggers/{id}", EDIT_APPS, {}),
    Row("DELETE", "triggers/{id}", EDIT_APPS),
    Row("POST", "triggers/{id}/start", EDIT_APPS, {}),
    Row("GET", "triggers/{id}/runs", READ_APPS),
    Row("GET", "trigger-runs/{id}", EDIT_APPS),
    Row("GET", "audit/events", READ_AUDIT),
    Row("GET", "audit/events/{id}", READ_AUDIT),
    Row("GET", "openapi.yaml", EVERYBODY),
    Row("GET", "docs", EVERYBODY),
]


def test_list_routes_every_one_is_in_the_table() -> None:
    found = set()
    for pattern in _flat(api_patterns):
        view = pattern.callback.cls
        path = re.sub(r"<[^>]+>", "{id}", str(pattern.pattern))
        methods = {m.upper() for m in ("get", "post", "put", "patch", "delete") if hasattr(view, m)}
        found |= {f"{method} {path}" for method in methods}
    assert found == {row.name for row in TABLE}


def _flat(patterns: Any) -> list[Any]:
    found: list[Any] = []
    for pattern in patterns:
        found += _flat(pattern.url_patterns) if hasattr(pattern, "url_patterns") else [pattern]
    return found


def test_call_every_route_as_everybody_follows_the_table(callers: dict[str, Caller]) -> None:
    wrong = []
    for row in TABLE:
        path = row.path.replace("{id}", str(uuid7()))
        for name, caller in callers.items():
            status = caller.call(row.method, path, row.body).status_code
            if name == "nobody":
                expected = status == 401
            elif name in row.allowed:
                expected = status in (200, 400, 404)
            else:
                expected = status == 403
            if not expected:
                wrong.append(f"{row.name} as {name}: {status}")
    assert wrong == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "BREW"])
def test_call_method_that_a_route_lacks_is_405_or_denied(owner: Caller, method: str) -> None:
    assert owner.call(method, "jobs").status_code in (403, 405)


def test_read_tenant_records_without_a_chosen_tenant_asks_for_one(
    tenant_a: Organisation, callers: dict[str, Caller]
) -> None:
    administrator = callers[SYSTEM]
    session = administrator.client.session
    session.pop("portal.active_tenant")
    session.save()
    for path in ("members", "keys", "quotas", "jobs"):
        response = administrator.get(path)
        assert (response.status_code, response.json()["code"]) == (403, "no_tenant")
    assert administrator.get("tenants").status_code == 200


def test_write_by_session_without_csrf_token_is_refused(tenant_a: Organisation) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(tenant_a.owner.user)
    caller = Caller(client)
    assert caller.get("keys").status_code == 200
    refused = caller.post("keys", {"name": "x", "scopes": ["inference"]})
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    assert caller.get("keys").json()["items"] == []
