"""Service accounts on the management API."""

from datetime import UTC, datetime

import psycopg
import pytest

from portal.core.ids import uuid7
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation
from tests.isolation.rows import insert
from tests.rollups import roll_up_all


@pytest.fixture
def account(owner: Caller) -> str:
    made = owner.post("service-accounts", {"name": "Invoice reader", "description": "reads"})
    assert made.status_code == 201
    found: str = made.json()["id"]
    return found


def _key(owner: Caller, account: str, *scopes: str) -> dict[str, str]:
    sent = {"name": "till", "scopes": list(scopes), "service_account_id": account}
    made = owner.post("keys", sent)
    assert made.status_code == 201
    found: dict[str, str] = {**made.json()["key"], "token": made.json()["token"]}
    return found


def test_create_read_edit_and_list_show_the_same_account(
    tenant_a: Organisation, owner: Caller, account: str
) -> None:
    read = owner.get(f"service-accounts/{account}").json()
    assert read["responsible"] == tenant_a.owner.user.email
    assert (read["state"], read["live_keys"], read["responsible_is_here"]) == ("active", 0, True)
    edited = owner.call(
        "PATCH",
        f"service-accounts/{account}",
        {"name": "Reader", "responsible_id": str(tenant_a.developer.user.id)},
    ).json()
    assert edited["responsible"] == tenant_a.developer.user.email
    assert (edited["name"], edited["description"]) == ("Reader", "reads")
    developer = session_caller(tenant_a.developer.user)
    assert developer.get("service-accounts").json()["items"] == [edited]


def test_key_of_a_service_account_names_it_in_every_list(
    tenant_a: Organisation, owner: Caller, account: str, owner_sql: psycopg.Connection
) -> None:
    key = _key(owner, account, "tenant:read", "keys:read")
    assert key["service_account_id"] == key["user_id"] == account
    assert key["made_by"] == "Invoice reader"
    caller = key_caller(key["token"])
    shown = caller.get(f"keys/{key['id']}").json()
    assert (shown["made_by"], shown["service_account_id"]) == ("Invoice reader", account)
    assert caller.get(f"service-accounts/{account}").json()["live_keys"] == 1
    limits = owner.call("PUT", "quotas", {"user_id": account, "requests_day": 5}).json()
    assert limits["user_id"] == account
    now = datetime(2021, 1, 1, tzinfo=UTC)
    insert(
        owner_sql,
        "tenants_ledgerentry",
        {
            "tenant_id": tenant_a.id, "id": uuid7(), "user_id": account, "api_key_id": key["id"],
            "job_id": uuid7(), "model_id": uuid7(), "sku": "m@1", "prompt_tokens": 2,
            "completion_tokens": 3, "cost": 4, "currency": "USD", "measure": "measured",
            "admitted_at": now, "recorded_at": datetime.now(UTC),
        },
    )  # fmt: skip
    roll_up_all()
    (row,) = caller.get("usage?group_by=user&from=2021-01-01&to=2021-01-01").json()["items"]
    assert (row["user_id"], row["user"]) == (account, "Invoice reader")


def test_key_of_a_person_has_no_service_account(owner: Caller) -> None:
    made = owner.post("keys", {"name": "own", "scopes": ["inference"]}).json()["key"]
    assert made["service_account_id"] is None


def test_disable_enable_and_retire_move_the_state(owner: Caller, account: str) -> None:
    path = f"service-accounts/{account}"
    token = _key(owner, account, "keys:read")["token"]
    assert owner.post(f"{path}/disable", {"reason": "leak"}).json()["state"] == "disabled"
    refused = key_caller(token).get("keys")
    assert (refused.status_code, refused.json()["code"]) == (403, "user_not_active")
    assert owner.post(f"{path}/enable", {"reason": "none"}).json()["state"] == "active"
    assert key_caller(token).get("keys").status_code == 200
    assert owner.call("DELETE", path).status_code == 204
    assert owner.get(path).json()["state"] == "retired"
    assert key_caller(token).get("keys").status_code == 401
    assert owner.call("DELETE", path).status_code == 409


def test_responsible_who_left_is_told(tenant_a: Organisation, owner: Caller) -> None:
    sent = {"name": "x", "responsible_id": str(tenant_a.viewer.user.id)}
    account = owner.post("service-accounts", sent).json()
    members = owner.get("members").json()["items"]
    (left,) = [m["id"] for m in members if m["user_id"] == account["responsible_id"]]
    assert owner.call("DELETE", f"members/{left}").status_code == 204
    assert not owner.get(f"service-accounts/{account['id']}").json()["responsible_is_here"]
