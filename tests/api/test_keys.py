"""API keys on the management API: networks, rotation, last use."""

from typing import Any

import psycopg
import pytest

from portal.core.http import trusted_networks
from portal.site import middleware
from tenants import api_key_format
from tenants.services import create_api_key, edit_api_key, rotate_api_key
from tests.api.callers import Caller, key_caller
from tests.factories import Organisation, api_key

HERE = "127.0.0.1"


def calls(superuser: psycopg.Connection, request_id: str) -> list[tuple[Any, ...]]:
    return superuser.execute(
        "SELECT outcome, reason, tenant_id, actor_id FROM audit_event WHERE request_id = %s "
        "AND category = 'call' ORDER BY recorded_at, id",
        [request_id],
    ).fetchall()


def test_create_key_with_networks_then_change_them(owner: Caller) -> None:
    made = owner.post(
        "keys", {"name": "x", "scopes": ["inference"], "allowed_networks": ["192.0.2.7"]}
    ).json()["key"]
    assert made["allowed_networks"] == ["192.0.2.7/32"]
    path = f"keys/{made['id']}"
    changed = owner.call("PATCH", path, {"allowed_networks": ["2001:db8::/32"]})
    assert changed.status_code == 200
    assert owner.get(path).json()["allowed_networks"] == ["2001:db8::/32"]
    for body in ('{"allowed_networks": []}', '{"allowed_networks": null}'):
        assert owner.call("PATCH", path, body.encode()).status_code == 200
        assert owner.get(path).json()["allowed_networks"] is None


@pytest.mark.parametrize(
    "networks", [["10.0.0.1/8"], ["x"], ["10.0.0.0/8"] * 51, "10.0.0.0/8", [7], None]
)
def test_change_networks_to_nonsense_names_the_field(owner: Caller, networks: Any) -> None:
    key_id = owner.post("keys", {"name": "x", "scopes": ["inference"]}).json()["key"]["id"]
    body = {} if networks is None else {"allowed_networks": networks}
    refused = owner.call("PATCH", f"keys/{key_id}", body)
    assert refused.status_code == 400
    assert refused.json()["param"] == "allowed_networks"


def test_rotate_key_shows_the_new_token_once_and_both_work(
    owner: Caller, tenant_a: Organisation
) -> None:
    made = api_key(tenant_a, scopes=["keys:read"])
    rotated = owner.post(f"keys/{made.api_key.id}/rotate", {"overlap_seconds": 60})
    assert rotated.status_code == 200
    body = rotated.json()
    assert (body["key"]["generation"], body["key"]["public_id"]) == (2, made.api_key.public_id)
    assert body["key"]["former_until"] is not None
    listed = key_caller(body["token"]).get("keys")
    assert listed.status_code == key_caller(made.token).get("keys").status_code == 200
    assert body["token"] not in str(listed.json())


def test_rotate_key_with_overlap_0_refuses_the_old_token_at_the_next_request(
    owner: Caller, tenant_a: Organisation
) -> None:
    made = api_key(tenant_a, scopes=["keys:read"])
    old = key_caller(made.token)
    assert old.get("keys").status_code == 200
    token = owner.post(f"keys/{made.api_key.id}/rotate", {"overlap_seconds": 0}).json()["token"]
    refused = old.get("keys")
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")
    assert key_caller(token).get("keys").status_code == 200


@pytest.mark.parametrize("overlap", [-1, 2_592_001, "a day", 10**30])
def test_rotate_key_with_a_bad_overlap_names_it(
    owner: Caller, tenant_a: Organisation, overlap: Any
) -> None:
    made = api_key(tenant_a)
    refused = owner.post(f"keys/{made.api_key.id}/rotate", {"overlap_seconds": overlap})
    assert refused.status_code == 400
    assert refused.json()["param"] == "overlap_seconds"


def test_read_key_tells_the_last_use_of_each_generation(
    owner: Caller, tenant_a: Organisation
) -> None:
    made = api_key(tenant_a, scopes=["keys:read"])
    path = f"keys/{made.api_key.id}"
    unused = owner.get(path).json()
    assert (unused["generation"], unused["last_used_at"], unused["uses"]) == (1, None, [])
    key_caller(made.token).get("keys")
    token = rotate_api_key(context=tenant_a.context, api_key_id=made.api_key.id).token
    assert [use["generation"] for use in owner.get(path).json()["uses"]] == [1]
    key_caller(token).get("keys")
    (listed,) = owner.get("keys").json()["items"]
    assert [use["generation"] for use in listed["uses"]] == [2, 1]
    assert listed["last_used_at"] == listed["uses"][0]["last_used_at"]
    assert listed["uses"][0]["last_used_at"] > listed["uses"][1]["last_used_at"]


def test_call_from_a_wrong_network_is_refused_and_stands_in_the_tenants_trail(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = create_api_key(
        context=tenant_a.context,
        name="bound",
        scopes=["keys:read"],
        allowed_networks=["198.51.100.0/24"],
    )
    refused = key_caller(made.token).get("keys")
    assert (refused.status_code, refused.json()["code"]) == (403, "network_not_allowed")
    assert "items" not in refused.json()
    key_id = made.api_key.id
    assert calls(owner_sql, refused["X-Request-Id"]) == [
        ("requested", "", tenant_a.id, key_id),
        ("denied", "network_not_allowed", tenant_a.id, key_id),
    ]
    edit_api_key(context=tenant_a.context, api_key_id=key_id, allowed_networks=[f"{HERE}/32"])
    assert key_caller(made.token).get("keys").status_code == 200


def test_call_with_a_wrong_secret_from_a_wrong_network_learns_of_the_secret(
    tenant_a: Organisation,
) -> None:
    made = create_api_key(
        context=tenant_a.context,
        name="bound",
        scopes=["keys:read"],
        allowed_networks=["198.51.100.0/24"],
    )
    forged = api_key_format.generate(made.api_key.public_id).token
    refused = key_caller(forged).get("keys")
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [("192.0.2.7", 200), ("::ffff:192.0.2.7", 200), ("192.0.3.7", 403), ("", 403)],
)
def test_call_behind_a_trusted_proxy_counts_from_the_callers_address(
    tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch, forwarded: str, status: int
) -> None:
    monkeypatch.setattr(middleware, "_trusted", lambda: trusted_networks(HERE))
    made = create_api_key(
        context=tenant_a.context,
        name="bound",
        scopes=["keys:read"],
        allowed_networks=["192.0.2.0/24"],
    )
    answer = key_caller(made.token).get("keys", **{"X-Forwarded-For": forwarded})
    assert answer.status_code == status
