"""The trail over the API: filters, and that reading it is in it."""

import psycopg
import pytest

from tests.api.callers import Caller, session_caller
from tests.factories import Organisation, api_key


@pytest.fixture
def auditor(tenant_a: Organisation) -> Caller:
    return session_caller(tenant_a.auditor.user)


def test_find_event_by_action_object_outcome_and_request(
    tenant_a: Organisation, auditor: Caller
) -> None:
    made = session_caller(tenant_a.owner.user).post(
        "keys", {"name": "searched", "scopes": ["inference"]}
    )
    key_id = made.json()["key"]["id"]
    for query in (
        "action=key.create",
        f"object={key_id}&category=intent",
        "object=searched&category=intent",
        f"request_id={made['X-Request-Id']}&category=intent",
        f"actor={tenant_a.owner.user.email}&outcome=success&category=intent&object=searched",
        "since=2020-01-01T00:00:00Z&action=key.create&until=2100-01-01T00:00:00Z",
    ):
        items = auditor.get(f"audit/events?{query}").json()["items"]
        assert [(e["action"], e["object_id"]) for e in items] == [("key.create", key_id)], query
    assert auditor.get("audit/events?until=2020-01-01T00:00:00Z").json()["items"] == []


def test_read_event_shows_before_and_after_without_secrets(
    tenant_a: Organisation, auditor: Caller
) -> None:
    made = api_key(tenant_a)
    items = auditor.get(f"audit/events?object={made.api_key.id}&category=change").json()["items"]
    event = auditor.get(f"audit/events/{items[0]['id']}").json()
    assert event["before"] is None
    assert event["after"]["name"] == "till"
    assert event["after"]["secret_hmac"] == "[redacted]"


def test_read_events_is_recorded_with_filter_and_count(
    tenant_a: Organisation, auditor: Caller, owner_sql: psycopg.Connection
) -> None:
    response = auditor.get("audit/events?action=tenant.create&category=intent")
    row = owner_sql.execute(
        "SELECT e.actor_label, b.detail FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.request_id = %s AND e.category = 'access'",
        [response["X-Request-Id"]],
    ).fetchone()
    assert row is not None
    assert row[0] == tenant_a.auditor.user.email
    assert row[1]["filter"] == {"action": "tenant.create", "category": "intent"}
    assert row[1]["rows"] == 1


def test_page_through_events_shows_each_once(auditor: Caller) -> None:
    whole = auditor.get("audit/events?limit=200").json()["items"]
    newest = whole[0]["recorded_at"]
    seen: list[str] = []
    path: str | None = f"audit/events?limit=3&until={newest.replace('+', '%2B')}"
    while path is not None:
        body = auditor.get(path).json()
        seen += [event["id"] for event in body["items"]]
        path = body["next"] and body["next"].removeprefix("/api/v1/")
    assert seen == [event["id"] for event in whole if event["recorded_at"] < newest]


def test_read_events_audit_administrator_sees_every_tenant(
    tenant_a: Organisation, tenant_b: Organisation, callers: dict[str, Caller]
) -> None:
    administrator = callers["audit administrator"]
    session = administrator.client.session
    session.pop("portal.active_tenant")
    session.save()
    for tenant in (tenant_a, tenant_b):
        items = administrator.get(f"audit/events?tenant_id={tenant.id}").json()["items"]
        assert {event["tenant_id"] for event in items} == {str(tenant.id)}
