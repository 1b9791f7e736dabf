"""Quotas by their ids on the management API."""

from datetime import UTC, datetime, timedelta

import psycopg

from portal.core.actors import PlatformRole
from tenants.warner import warn
from tenants.windows import window_starts
from tests import factories
from tests.api.callers import Caller, session_caller
from tests.factories import Organisation, api_key


def test_read_a_quota_shows_what_is_held_the_level_and_the_warnings_of_the_window_under_way(
    owner: Caller,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    gateway_sql: psycopg.Connection,
) -> None:
    key_id = str(api_key(tenant_a).api_key.id)
    quota_id = owner.call("PUT", "quotas", {"api_key_id": key_id, "tokens_day": 10}).json()["id"]
    yesterday = window_starts(datetime.now(UTC), "UTC")["day"] - timedelta(days=1)
    move = (
        "UPDATE tenants_quotawindow SET day_start = %s, tokens_day_used = %s, tokens_day_held = %s "
        "WHERE quota_id = %s"
    )
    owner_sql.execute(move, [yesterday, 10, 0, quota_id])
    warn(gateway_sql, yesterday + timedelta(hours=1))
    owner_sql.execute(move, [yesterday + timedelta(days=1), 5, 3, quota_id])
    warn(gateway_sql)
    listed = owner.get("quotas").json()["items"][0]
    assert listed == owner.get(f"quotas/{quota_id}").json()
    day = next(limit for limit in listed["limits"] if limit["name"] == "tokens_day")
    assert (day["limit"], day["used"], day["held"], day["level"]) == (10, 8, 3, 80)
    told = [(w["level"], w["maximum"], w["taken"]) for w in day["warnings"]]
    assert told == [(50, 10, 8), (80, 10, 8)]


def test_edit_then_delete_a_quota_of_a_key_by_its_id(
    owner: Caller, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    key_id = str(api_key(tenant_a).api_key.id)
    made = owner.call("PUT", "quotas", {"api_key_id": key_id, "tokens_day": 10}).json()
    path = f"quotas/{made['id']}"
    changed = owner.call("PATCH", path, {"tokens_day": None, "cost_month": 5}).json()
    limits = {limit["name"]: limit["limit"] for limit in changed["limits"]}
    assert (changed["id"], limits["tokens_day"], limits["cost_month"]) == (made["id"], None, 5)
    assert owner.call("PATCH", path, {}).status_code == 400
    assert owner.call("DELETE", path, None).status_code == 204
    assert owner.get(path).status_code == 404
    assert owner.call("DELETE", path, None).status_code == 404
    assert [q["api_key_id"] for q in owner.get("quotas").json()["items"]] == [None]


def test_edit_and_delete_the_tenants_own_quota_by_its_id(
    owner: Caller, tenant_a: Organisation
) -> None:
    (own,) = owner.get("quotas").json()["items"]
    path = f"quotas/{own['id']}"
    assert owner.call("PATCH", path, {"tokens_day": 1}).status_code == 403
    assert owner.call("DELETE", path, None).status_code == 403
    entered = session_caller(factories.administrator(PlatformRole.SYSTEM).user, tenant_a.id)
    changed = entered.call("PATCH", path, {"concurrency": 3})
    assert changed.status_code == 200
    refused = entered.call("DELETE", path, None)
    assert refused.status_code == 400
    assert "limits away" in refused.json()["detail"]
    assert [q["id"] for q in owner.get("quotas").json()["items"]] == [own["id"]]
