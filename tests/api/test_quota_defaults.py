"""Default quotas on the management API: where each limit comes from is told."""

from typing import Any

import pytest

from portal.core.ids import uuid7
from tests.api.callers import Caller
from tests.factories import Organisation, api_key


@pytest.fixture
def default(owner: Caller) -> dict[str, Any]:
    set_ = owner.call("PUT", "quota-defaults", {"applies_to": "api_key", "requests_day": 1000})
    assert set_.status_code == 200
    found: dict[str, Any] = set_.json()
    return found


def told(owner: Caller, key_id: object) -> dict[str, tuple[Any, Any, Any]]:
    """Limit, origin and default of what a key is limited in, or could be by its default."""
    (quota,) = [q for q in owner.get("quotas").json()["items"] if q["api_key_id"] == str(key_id)]
    assert owner.get(f"quotas/{quota['id']}").json() == quota
    return {
        use["name"]: (use["limit"], use["origin"], use["default_limit"])
        for use in quota["limits"]
        if (use["limit"], use["default_limit"]) != (None, None)
    }


def test_set_read_edit_list_and_delete_a_default(owner: Caller, default: dict[str, Any]) -> None:
    path = f"quota-defaults/{default['id']}"
    assert owner.get(path).json() == default
    assert (default["applies_to"], default["model_id"]) == ("api_key", None)
    assert (default["requests_day"], default["tokens_day"]) == (1000, None)
    edited = owner.call("PATCH", path, {"tokens_day": 5}).json()
    assert edited == {**default, "tokens_day": 5}
    assert owner.get("quota-defaults").json()["items"] == [edited]
    assert owner.call("DELETE", path).status_code == 204
    assert owner.get(path).status_code == 404
    assert owner.get("quota-defaults").json()["items"] == []


def test_quota_of_a_key_tells_where_each_limit_comes_from(
    tenant_a: Organisation, owner: Caller, default: dict[str, Any]
) -> None:
    key = api_key(tenant_a).api_key
    assert told(owner, key.id) == {"requests_day": (1000, "default", 1000)}
    sent = {"api_key_id": str(key.id), "requests_day": 5, "concurrency": 2}
    assert owner.call("PUT", "quotas", sent).status_code == 200
    assert told(owner, key.id) == {
        "requests_day": (5, "own", 1000),
        "concurrency": (2, "own", None),
    }
    sent = {"api_key_id": str(key.id), "requests_day": None, "concurrency": None}
    changed = owner.call("PUT", "quotas", sent).json()
    assert told(owner, key.id) == {"requests_day": (1000, "default", 1000)}
    assert owner.call("DELETE", f"quotas/{changed['id']}").status_code == 204
    assert told(owner, key.id) == {"requests_day": (1000, "default", 1000)}


def test_default_of_a_model_has_a_row_of_its_own(
    tenant_a: Organisation, owner: Caller, default: dict[str, Any]
) -> None:
    model = str(uuid7())
    sent = {"applies_to": "api_key", "model_id": model, "tokens_day": 7}
    assert owner.call("PUT", "quota-defaults", sent).json()["id"] != default["id"]
    key = api_key(tenant_a).api_key
    quotas = owner.get("quotas").json()["items"]
    assert {q["model_id"] for q in quotas if q["api_key_id"] == str(key.id)} == {None, model}


@pytest.mark.parametrize(
    "body",
    [{"applies_to": "tenant", "tokens_day": 1}, {"tokens_day": 1}, {"applies_to": "user"}],
)
def test_set_default_bad_input_is_400(owner: Caller, body: dict[str, Any]) -> None:
    assert owner.call("PUT", "quota-defaults", body).status_code == 400
