"""What the management API's resources do, from end to end."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.core.actors import PlatformRole
from portal.core.ids import uuid7
from tenants.windows import window_end, window_starts
from tests import factories
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation, api_key, unique
from tests.isolation.rows import populate


@pytest.fixture
def administrator(database: None) -> Caller:
    return session_caller(factories.administrator(PlatformRole.SYSTEM).user)


def test_create_tenant_then_its_owner_makes_a_key_that_works(administrator: Caller) -> None:
    slug = unique("shop")
    made = administrator.post(
        "tenants", {"name": "Shop", "slug": slug, "owner_email": f"o@{slug}.example.test"}
    )
    assert made.status_code == 201
    body = made.json()
    assert body["password"]
    owner = Caller()
    assert owner.client.login(username=body["owner"]["email"], password=body["password"])
    created = owner.post("keys", {"name": "till", "scopes": ["keys:read", "inference"]})
    assert created.status_code == 201
    token = created.json()["token"]
    listed = key_caller(token).get("keys").json()["items"]
    assert [key["name"] for key in listed] == ["till"]
    assert token not in str(listed)


def test_edit_suspend_and_resume_tenant(administrator: Caller, tenant_a: Organisation) -> None:
    path = f"tenants/{tenant_a.id}"
    changed = administrator.call("PATCH", path, {"time_zone": "Asia/Shanghai", "weight": 3})
    assert (changed.json()["time_zone"], changed.json()["weight"]) == ("Asia/Shanghai", 3)
    token = api_key(tenant_a, scopes=["keys:read"]).token
    assert (
        administrator.post(f"{path}/suspend", {"reason": "unpaid"}).json()["state"] == "suspended"
    )
    refused = key_caller(token).get("keys")
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_not_active")
    assert administrator.post(f"{path}/resume", {"reason": "paid"}).json()["state"] == "active"
    assert key_caller(token).get("keys").status_code == 200


def test_revoke_key_holds_at_the_next_request(owner: Caller, tenant_a: Organisation) -> None:
    made = api_key(tenant_a, scopes=["keys:read"])
    caller = key_caller(made.token)
    assert caller.get("keys").status_code == 200
    revoked = owner.post(f"keys/{made.api_key.id}/revoke", {"reason": "leaked"})
    assert revoked.json()["revoked_reason"] == "leaked"
    refused = caller.get("keys")
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")
    assert refused["WWW-Authenticate"].startswith("Bearer")


def test_manage_members(owner: Caller) -> None:
    email = f"{unique('new')}@example.test"
    added = owner.post("members", {"email": email, "role": "viewer"})
    assert added.status_code == 201
    member = added.json()["member"]
    path = f"members/{member['id']}"
    assert owner.call("PATCH", path, {"role": "developer"}).json()["role"] == "developer"
    assert owner.get(path).json()["email"] == email
    assert owner.call("DELETE", path).status_code == 204
    assert owner.get(path).status_code == 404


def test_remove_last_owner_is_a_conflict(owner: Caller) -> None:
    members = owner.get("members").json()["items"]
    own = next(member for member in members if member["role"] == "owner")
    refused = owner.call("DELETE", f"members/{own['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "last_owner")


def test_set_quota_of_a_key_then_read_it_with_its_use(
    owner: Caller, tenant_a: Organisation
) -> None:
    key_id = str(api_key(tenant_a).api_key.id)
    answer = owner.call("PUT", "quotas", {"api_key_id": key_id, "tokens_day": 1000})
    assert answer.status_code == 200
    quotas = owner.get("quotas").json()["items"]
    assert [q["api_key_id"] for q in quotas] == [key_id, None]
    limits = {limit["name"]: limit for limit in quotas[0]["limits"]}
    resets_at = limits["tokens_day"].pop("resets_at")
    assert datetime.fromisoformat(resets_at) == window_end(
        window_starts(datetime.now(UTC), "UTC")["day"], "day", "UTC"
    )
    assert limits["tokens_day"] == {
        "name": "tokens_day", "limit": 1000, "used": 0, "held": 0, "level": None, "warnings": [],
        "origin": "own", "default_limit": None,
    }  # fmt: skip
    assert limits["tokens_total"]["resets_at"] is None


def test_set_tenant_limits_by_administrator_who_entered_nothing(
    administrator: Caller, tenant_a: Organisation
) -> None:
    for value in (5, 6):
        answer = administrator.call(
            "PUT", "quotas", {"tenant_id": str(tenant_a.id), "concurrency": value}
        )
        limits = {limit["name"]: limit["limit"] for limit in answer.json()["limits"]}
        assert limits["concurrency"] == value


def test_read_job_with_its_timeline(
    owner: Caller,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    job_id = populate(owner_sql, tenant_a, served).keys["inference_job"][1]
    listed = owner.get("jobs?state=succeeded").json()["items"]
    assert [job["id"] for job in listed] == [str(job_id)]
    job = owner.get(f"jobs/{job_id}").json()
    assert job["state"] == "succeeded"
    assert {moment["name"] for moment in job["timeline"]} == {"admitted", "finished"}
    assert owner.get("jobs?state=queued").json()["items"] == []
    assert owner.get(f"jobs?api_key_id={uuid7()}").json()["items"] == []
    assert owner.get("jobs?request_id=nobody").json()["items"] == []


def test_page_through_a_list_shows_each_row_once(owner: Caller, tenant_a: Organisation) -> None:
    made = [str(api_key(tenant_a, name=f"key {i}").api_key.id) for i in range(5)]
    seen: list[str] = []
    path: str | None = "/api/v1/keys?limit=2"
    pages = 0
    while path is not None:
        body = owner.get(path.removeprefix("/api/v1/")).json()
        seen += [key["id"] for key in body["items"]]
        path = body["next"]
        pages += 1
    assert seen == made[::-1]
    assert pages == 3


def test_list_tenants_of_an_owner_is_the_own_one(owner: Caller, tenant_a: Organisation) -> None:
    assert [t["id"] for t in owner.get("tenants").json()["items"]] == [str(tenant_a.id)]


MOST_QUERIES = 32
"""Session, user, membership, two audit events in their own transactions, scope, the list."""


@pytest.mark.parametrize("path", ["members", "keys", "quotas", "jobs"])
def test_list_rows_takes_the_same_queries_for_one_and_for_many(
    path: str,
    owner: Caller,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    populate(owner_sql, tenant_a, served)
    few = _queries(owner, path)
    for index in range(4):
        key = api_key(tenant_a, name=f"more {index}").api_key
        owner.call("PUT", "quotas", {"api_key_id": str(key.id), "tokens_day": index})
        owner.post("members", {"email": f"{unique('m')}@example.test", "role": "viewer"})
    _copy_job(owner_sql, tenant_a)
    many = _queries(owner, path)
    assert many == few
    assert few <= MOST_QUERIES


def _copy_job(owner_sql: psycopg.Connection, organisation: Organisation) -> None:
    owner_sql.execute(
        "CREATE TEMP TABLE IF NOT EXISTS one AS SELECT * FROM inference_job WHERE false"
    )
    for _ in range(3):
        owner_sql.execute("TRUNCATE one")
        owner_sql.execute(
            "INSERT INTO one SELECT * FROM inference_job WHERE tenant_id = %s LIMIT 1",
            [organisation.id],
        )
        owner_sql.execute("UPDATE one SET id = %s", [uuid7()])
        owner_sql.execute("INSERT INTO inference_job SELECT * FROM one")


def _queries(caller: Caller, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        response = caller.get(path)
    body: dict[str, Any] = response.json()
    assert body["items"]
    return len(captured)
