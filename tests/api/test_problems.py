"""Bad input gets a clear 4xx as RFC 9457 problem details, and never a 5xx."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.core.rest import MAX_BODY_BYTES
from tests.api.callers import Caller, Reply


def check_problem(response: Reply, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.content)
    assert body["status"] == status
    assert body["request_id"] == response["X-Request-Id"]
    assert body["type"] == f"urn:freehold:problem:{body['code']}"
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\x00",
        b"\xff\xfe",
        b"[1, 2",
        b'{"name": NaN}',
        b"[" * 200_000,
        b'{"name": "\\ud800", "scopes": ["inference"]}',
        b'{"name": "a\\u0000b", "scopes": ["inference"]}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b"[]",
        b"null",
        b'"text"',
        b"17",
        b"{}",
        b'{"name": {}, "scopes": {}}',
        b'{"name": "x", "scopes": "inference"}',
        b'{"name": "x", "scopes": [null]}',
        b'{"name": "x", "scopes": [["inference"]]}',
        b'{"name": "x", "scopes": ["\\ud800"]}',
        b'{"name": "x", "scopes": ["inference"], "expires_at": "tomorrow"}',
        b'{"name": "x", "scopes": ["inference"], "expires_at": "9999-12-31T23:59:59-14:00"}',
    ],
    ids=range(22),
)
def test_create_key_with_bad_body_is_a_400(owner: Caller, body: bytes) -> None:
    check_problem(owner.post("keys", body), 400)
    assert owner.get("keys").json()["items"] == []


def test_create_key_names_every_wrong_field(owner: Caller) -> None:
    body = check_problem(owner.post("keys", {"scopes": []}), 400)
    assert body["param"] == "name"
    assert set(body["data"]["errors"]) == {"name", "scopes"}


def test_send_body_too_large_is_a_413(owner: Caller) -> None:
    body = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    assert check_problem(owner.post("keys", body), 413)["code"] == "body_too_large"


def test_send_other_media_type_is_a_415(owner: Caller) -> None:
    response = owner.client.post("/api/v1/keys", {"name": "x"})
    check_problem(response, 415)


@pytest.mark.parametrize(
    "path",
    [
        "keys/not-an-id",
        "keys/%00",
        "keys/" + "9" * 300,
        "jobs/%F0%28",
        "tenants/../keys/x",
        "audit/events/0",
        "keys?limit=0",
        "keys?limit=201",
        "keys?limit=-1",
        "keys?limit=many",
        "keys?limit=" + "9" * 400,
        "keys?before=yesterday",
        "keys?before=%00",
        "jobs?state=lost",
        "jobs?api_key_id=1",
        "jobs?request_id=%00",
    ],
)
def test_send_bad_id_or_query_is_a_4xx(owner: Caller, path: str) -> None:
    response = owner.get(path)
    assert response.status_code in (400, 403, 404)
    check_problem(response, response.status_code)


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "since=2020-01-01T00:00:00%00Z",
        "until=0001-01-01T00:00:00%2B14:00",
        "since=9999-12-31T23:59:59-14:00",
        "category=gossip",
        "outcome=maybe",
        "tenant_id=me",
        "before=never",
        "before=2020-01-01_x",
        "before=2020-01-01T00:00:00_00000000-0000-0000-0000-000000000000",
        "actor=" + "x" * 300,
    ],
)
def test_read_audit_with_bad_filter_is_a_400(callers: dict[str, Caller], query: str) -> None:
    check_problem(callers["auditor"].get(f"audit/events?{query}"), 400)


def test_call_unknown_route_is_a_404_problem(owner: Caller) -> None:
    check_problem(owner.get("nowhere"), 404)


def test_call_wrong_method_is_a_405_problem(owner: Caller) -> None:
    check_problem(owner.call("DELETE", "tenants"), 405)


def test_call_without_credential_is_a_401_problem() -> None:
    response = Caller().get("keys")
    check_problem(response, 401)
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer fh_x_y",
        "Bearer " + "x" * 5000,
        "bearer \x00",
        "Bearer é",
        "fh_AAAAAAAAAAAA_" + "b" * 38,
    ],
)
def test_call_with_malformed_credential_is_a_401_problem(authorization: str) -> None:
    check_problem(Caller(Authorization=authorization).get("keys"), 401)


def test_raise_defect_in_a_view_is_a_500_problem_without_its_words(
    owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(**_fields: object) -> None:
        raise RuntimeError("a secret word")

    monkeypatch.setattr("tenants.api.views.services.create_api_key", defect)
    response = owner.post("keys", {"name": "x", "scopes": ["inference"]})
    check_problem(response, 500)
    assert b"secret" not in response.content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "name",
        "scopes",
        "allowed_models",
        "expires_at",
        "slug",
        "role",
        "email",
        "reason",
        "tokens_day",
        "concurrency",
        "api_key_id",
        "user_id",
        "model_id",
        "tenant_id",
        "weight",
    ]
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    body=st.dictionaries(FIELDS, JSON, max_size=6) | JSON,
    target=st.sampled_from(
        [("POST", "keys"), ("POST", "members"), ("PUT", "quotas"), ("PATCH", "members/x")]
    ),
)
def test_send_any_json_is_never_a_5xx(owner: Caller, body: Any, target: tuple[str, str]) -> None:
    method, path = target
    sent = json.dumps(body).encode()
    assert owner.call(method, path, sent).status_code < 500
