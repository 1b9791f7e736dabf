"""No route of the management API tells one tenant anything of another."""

from typing import Any
from uuid import UUID

import psycopg
import pytest

from portal.core.ids import uuid7
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation, api_key
from tests.isolation.rows import Populated, populate


@pytest.fixture
def other(
    tenant_b: Organisation, owner_sql: psycopg.Connection, served: dict[str, UUID]
) -> Populated:
    """The other tenant, with something in every table."""
    return populate(owner_sql, tenant_b, served)


def _body(caller: Caller, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    response = caller.call(method, path, body)
    told: dict[str, Any] = response.json()
    told.pop("request_id")
    return response.status_code, told


def _id_of(other: Populated, table: str, owner_sql: psycopg.Connection) -> UUID:
    if table in other.keys:
        return other.keys[table][1]
    row = owner_sql.execute(
        f"SELECT id FROM {table} WHERE tenant_id = %s LIMIT 1", [other.id]
    ).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


ROUTES: list[tuple[str, str, str, Any, str]] = [
    ("owner", "GET", "keys/{id}", None, "tenants_apikey"),
    ("owner", "PATCH", "keys/{id}", {"allowed_networks": []}, "tenants_apikey"),
    ("owner", "POST", "keys/{id}/rotate", {"overlap_seconds": 0}, "tenants_apikey"),
    ("owner", "POST", "keys/{id}/revoke", {"reason": "x"}, "tenants_apikey"),
    ("owner", "GET", "members/{id}", None, "tenants_membership"),
    ("owner", "PATCH", "members/{id}", {"role": "owner"}, "tenants_membership"),
    ("owner", "DELETE", "members/{id}", None, "tenants_membership"),
    ("owner", "GET", "service-accounts/{id}", None, "tenants_serviceaccount"),
    ("owner", "PATCH", "service-accounts/{id}", {"name": "x"}, "tenants_serviceaccount"),
    ("owner", "DELETE", "service-accounts/{id}", None, "tenants_serviceaccount"),
    (
        "owner",
        "POST",
        "service-accounts/{id}/disable",
        {"reason": "x"},
        "tenants_serviceaccount",
    ),
    ("owner", "POST", "service-accounts/{id}/enable", {"reason": "x"}, "tenants_serviceaccount"),
    (
        "owner",
        "POST",
        "keys",
        {"service_account_id": "{id}", "name": "x", "scopes": ["inference"]},
        "tenants_serviceaccount",
    ),
    ("owner", "GET", "jobs/{id}", None, "inference_job"),
    ("owner", "GET", "jobs/{id}/events", None, "inference_job"),
    ("owner", "POST", "jobs/{id}/cancel", {}, "inference_job"),
    ("owner", "GET", "batches/{id}", None, "inference_batch"),
    ("owner", "PUT", "quotas", {"api_key_id": "{id}", "tokens_day": 0}, "tenants_apikey"),
    ("owner", "GET", "quotas/{id}", None, "tenants_quota"),
    ("owner", "PATCH", "quotas/{id}", {"tokens_day": 0}, "tenants_quota"),
    ("owner", "DELETE", "quotas/{id}", None, "tenants_quota"),
    ("owner", "GET", "quota-defaults/{id}", None, "tenants_quotadefault"),
    ("owner", "PATCH", "quota-defaults/{id}", {"tokens_day": 0}, "tenants_quotadefault"),
    ("owner", "DELETE", "quota-defaults/{id}", None, "tenants_quotadefault"),
    ("auditor", "GET", "audit/events/{id}", None, "audit_event"),
]


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "table"), ROUTES, ids=[f"{r[1]} {r[2]}" for r in ROUTES]
)
def test_name_another_tenants_id_reads_as_a_missing_one(
    tenant_a: Organisation,
    other: Populated,
    owner_sql: psycopg.Connection,
    role: str,
    method: str,
    path: str,
    body: Any,
    table: str,
) -> None:
    caller = session_caller(getattr(tenant_a, role).user)
    before = _state(owner_sql, other.id)
    answers = []
    for row_id in (_id_of(other, table, owner_sql), uuid7()):
        sent = (
            None
            if body is None
            else {k: str(row_id) if v == "{id}" else v for k, v in body.items()}
        )
        answers.append(_body(caller, method, path.replace("{id}", str(row_id)), sent))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert _state(owner_sql, other.id) == before


def _state(owner_sql: psycopg.Connection, tenant_id: UUID) -> list[Any]:
    return [
        owner_sql.execute(
            f"SELECT t::text FROM {table} t WHERE tenant_id = %s ORDER BY 1", [tenant_id]
        ).fetchall()
        for table in ("tenants_apikey", "tenants_membership", "tenants_quota", "audit_event")
    ]


def test_name_another_tenant_reads_as_a_missing_one(
    tenant_a: Organisation, other: Populated
) -> None:
    callers = [
        session_caller(tenant_a.owner.user),
        key_caller(api_key(tenant_a, scopes=["tenant:read"]).token),
    ]
    for caller in callers:
        answers = [
            _body(caller, "GET", f"tenants/{tenant}", None) for tenant in (other.id, uuid7())
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


def test_list_anything_shows_the_own_tenant_alone(
    tenant_a: Organisation,
    other: Populated,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    populate(owner_sql, tenant_a, served)
    owner, auditor = (session_caller(p.user) for p in (tenant_a.owner, tenant_a.auditor))
    theirs = {str(value) for _, value in other.keys.values()} | {str(other.id)}
    for caller, path in (
        (owner, "tenants"),
        (owner, "members"),
        (owner, "keys"),
        (owner, "quotas"),
        (owner, "jobs"),
        (owner, "batches"),
        (auditor, "audit/events?limit=200"),
    ):
        text = caller.get(path).content.decode()
        assert not [value for value in theirs if value in text], path


def test_filter_by_another_tenant_finds_nothing(tenant_a: Organisation, other: Populated) -> None:
    auditor = session_caller(tenant_a.auditor.user)
    assert auditor.get(f"audit/events?tenant_id={other.id}").json()["items"] == []
    owner = session_caller(tenant_a.owner.user)
    key = other.keys["tenants_apikey"][1]
    assert owner.get(f"jobs?api_key_id={key}").json()["items"] == []
    before = other.keys["inference_job"][1]
    assert str(before) not in owner.get(f"jobs?before={before}").content.decode()


def test_set_quota_of_another_tenant_by_an_owner_is_not_found(
    tenant_a: Organisation, other: Populated
) -> None:
    key = api_key(tenant_a).api_key
    caller = session_caller(tenant_a.owner.user)
    fields = {"tenant_id": str(other.id), "api_key_id": str(key.id), "tokens_day": 1}
    assert caller.call("PUT", "quotas", fields).status_code == 404


def test_choose_another_tenant_in_the_session_gives_nothing(
    tenant_a: Organisation, other: Populated
) -> None:
    caller = session_caller(tenant_a.owner.user, other.id)
    assert [t["id"] for t in caller.get("tenants").json()["items"]] == [str(tenant_a.id)]
