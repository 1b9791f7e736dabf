"""What surrounds a request: ids, hostile headers, the audit trail, rollback, content policy."""

from typing import Any

import psycopg
import pytest
from django.db import DatabaseError
from django.test import Client

from audit.services import Event
from portal.core.actors import Context, PlatformRole
from portal.core.errors import Conflict
from portal.site import middleware
from tenants import services
from tenants.identity.sessions import enter_tenant, leave_tenant
from tests import factories
from tests.api.callers import Caller, Reply, key_caller, session_caller
from tests.factories import Organisation, api_key

KEY = {"name": "till", "scopes": ["inference"]}

HOSTILE = {
    "long correlation id": {"X-Correlation-Id": "x" * 300},
    "long request id": {"X-Request-Id": "x" * 300},
    "unprintable request id": {"X-Request-Id": "a\x00b\r\nSet-Cookie: x=1\x7f"},
    "foreign request id": {"X-Request-Id": "ün-ïd-请求"},
    "forwarded port": {"X-Forwarded-Port": "99999999999"},
    "garbage forwarded for": {"X-Forwarded-For": "garbage, <script>, 999.1.1.1, \x00"},
    "endless forwarded for": {"X-Forwarded-For": ", ".join(["10.0.0.1"] * 5000)},
    "forwarded host": {"X-Forwarded-Host": "evil.example:99999999999"},
    "NUL in agent": {"User-Agent": "\x00" * 10},
    "odd language": {"Accept-Language": "x" * 5000},
    "odd content length": {"Content-Length": "minus one"},
    "odd accept": {"Accept": "a/b;q=" + "9" * 500},
    "NUL in session": {"Cookie": 'sessionid="\\000bcdefghijklmnop"'},
    "odd cookies": {"Cookie": "=;;;sessionid;a=b;=c"},
}


def events(owner_sql: psycopg.Connection, response: Reply) -> list[Any]:
    return owner_sql.execute(
        "SELECT category, action, outcome, actor_label, client_request_id, host(address), "
        "tenant_id FROM audit_event WHERE request_id = %s ORDER BY recorded_at, id",
        [response["X-Request-Id"]],
    ).fetchall()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["/api/v1/keys", "/admin/login/"])
def test_send_hostile_header_is_answered_and_audited(
    tenant_a: Organisation, owner_sql: psycopg.Connection, name: str, path: str
) -> None:
    token = api_key(tenant_a, scopes=["keys:read"]).token
    headers = {"Authorization": f"Bearer {token}", **HOSTILE[name]}
    response = Client(raise_request_exception=False).get(path, headers=headers)
    assert response.status_code in (200, 406), response.content
    recorded = [event for event in events(owner_sql, response) if event[0] == "call"]
    assert [event[2] for event in recorded] in (
        ["requested", "success"],
        ["requested", "failure"],
    )
    assert {event[5] for event in recorded} == {"127.0.0.1"}


def test_send_request_id_is_kept_apart_from_ours(
    owner: Caller, owner_sql: psycopg.Connection
) -> None:
    first = owner.get("keys", **{"X-Request-Id": "mine-1"})
    second = owner.get("keys", **{"X-Request-Id": "mine-1"})
    assert first["X-Request-Id"] != second["X-Request-Id"]
    assert {event[4] for event in events(owner_sql, first)} == {"mine-1"}


def test_send_host_that_is_not_ours_is_a_400_problem_and_audited(
    owner_sql: psycopg.Connection,
) -> None:
    response = Client(raise_request_exception=False).get(
        "/api/v1/keys", headers={"Host": "evil.example"}
    )
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert [e[2] for e in events(owner_sql, response)] == ["requested", "failure"]


@pytest.mark.parametrize("path", ["/admin/?q=%00", "/admin/%00", "/api/v1/keys?a=%00"])
def test_send_nul_in_the_address_is_a_400(owner: Caller, path: str) -> None:
    assert owner.client.get(path).status_code == 400


def test_record_call_before_and_after_with_its_caller(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    response = session_caller(tenant_a.owner.user).post("keys", KEY)
    recorded = events(owner_sql, response)
    assert [(e[0], e[1], e[2]) for e in recorded] == [
        ("call", "POST /api/v1/keys", "requested"),
        ("intent", "key.create", "success"),
        ("change", "tenants.apikey.insert", "success"),
        ("call", "POST /api/v1/keys", "success"),
    ]
    assert {e[3] for e in recorded} == {tenant_a.owner.user.email}
    assert {e[6] for e in recorded} == {tenant_a.id}


@pytest.mark.parametrize(
    ("path", "status"), [("keys", 401), ("deployments", 403), ("nowhere", 404)]
)
def test_record_denial_of_every_kind(
    tenant_a: Organisation, owner_sql: psycopg.Connection, path: str, status: int
) -> None:
    caller = Caller() if status == 401 else session_caller(tenant_a.owner.user)
    response = caller.get(path)
    assert response.status_code == status
    assert [e[2] for e in events(owner_sql, response)] == ["requested", "denied"]


def test_record_refused_key_as_a_stranger(owner_sql: psycopg.Connection) -> None:
    response = key_caller("fh_x_y").get("keys")
    recorded = events(owner_sql, response)
    assert [(e[2], e[3]) for e in recorded] == [
        ("requested", "anonymous"),
        ("denied", "anonymous"),
    ]


def test_skip_record_of_the_language_catalogue(
    owner: Caller, owner_sql: psycopg.Connection
) -> None:
    assert events(owner_sql, owner.client.get("/admin/jsi18n/")) == []


def test_refuse_call_that_cannot_be_recorded(
    owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(event: Event, *, context: Context | None = None) -> None:
        raise DatabaseError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(middleware, "record", full)
        refused = owner.post("keys", KEY)
        page = owner.client.get("/admin/")
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert page.status_code == 503
    assert owner.get("keys").json()["items"] == []


def test_undo_everything_after_a_refusal_and_keep_its_record(
    owner: Caller, owner_sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_then_refuse(**fields: Any) -> None:
        created.append(services.keys.create_api_key(**fields))
        raise Conflict("too late")

    created: list[Any] = []
    with monkeypatch.context() as broken:
        broken.setattr("tenants.api.views.services.create_api_key", create_then_refuse)
        response = owner.post("keys", KEY)
    assert response.status_code == 409
    assert len(created) == 1
    assert owner.get("keys").json()["items"] == []
    assert [e[2] for e in events(owner_sql, response)] == ["requested", "failure"]


def test_undo_everything_after_a_defect(owner: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_then_fail(**fields: Any) -> None:
        services.keys.create_api_key(**fields)
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr("tenants.api.views.services.create_api_key", create_then_fail)
        assert owner.post("keys", KEY).status_code == 500
    assert owner.get("keys").json()["items"] == []


def test_load_page_only_from_this_origin(owner: Caller) -> None:
    page = owner.client.get("/admin/login/", follow=True)
    policy = page["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http:" not in policy
    assert "https:" not in policy
    assert "*" not in policy
    assert owner.get("keys")["Content-Security-Policy"].startswith("default-src 'none'")


def test_log_in_and_out_is_recorded_and_ends_playground_keys(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    client = Client()
    assert client.login(username=tenant_a.owner.user.email, password=tenant_a.owner.password)
    session_key = client.session.session_key
    assert session_key is not None
    made = services.create_playground_key(context=tenant_a.owner.context, session_key=session_key)
    client.logout()
    revoked = owner_sql.execute(
        "SELECT revoked_reason FROM tenants_apikey WHERE id = %s", [made.api_key.id]
    ).fetchone()
    assert revoked == ("log-out",)
    told = owner_sql.execute(
        "SELECT action, outcome FROM audit_event WHERE category = 'auth' AND object_label = %s "
        "ORDER BY recorded_at",
        [tenant_a.owner.user.email],
    ).fetchall()
    assert told == [("auth.log_in", "success"), ("auth.log_out", "success")]


def test_log_in_with_wrong_password_reads_the_same_for_an_unknown_account(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    unknown = f"{factories.unique('nobody')}@example.test"
    shapes = []
    for email in (tenant_a.owner.user.email, unknown):
        assert not Client().login(username=email, password="wrong-password-1")
        rows = owner_sql.execute(
            "SELECT action, outcome, actor_type, actor_id, object_id, tenant_id FROM audit_event "
            "WHERE category = 'auth' AND object_label = %s",
            [email],
        ).fetchall()
        shapes.append(rows)
    assert len(shapes[0]) == 1
    assert shapes[0] == shapes[1]
    assert shapes[0][0][1] == "denied"


def test_enter_tenant_by_an_administrator_stands_in_its_trail(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    administrator = factories.administrator(PlatformRole.SYSTEM)
    session = Client().session
    enter_tenant(context=administrator.context, session=session, tenant_id=tenant_a.id)
    assert session["portal.active_tenant"] == str(tenant_a.id)
    leave_tenant(context=administrator.context, session=session)
    told = owner_sql.execute(
        "SELECT action FROM audit_event WHERE tenant_id = %s AND actor_id = %s "
        "AND category = 'intent' ORDER BY recorded_at",
        [tenant_a.id, administrator.user.id],
    ).fetchall()
    assert told == [("tenant.enter",), ("tenant.leave",)]


def test_deactivate_user_ends_the_session(tenant_a: Organisation, security_admin: Context) -> None:
    caller = session_caller(tenant_a.viewer.user)
    assert caller.get("keys").status_code == 200
    services.deactivate_user(context=security_admin, user_id=tenant_a.viewer.user.id, reason="left")
    assert caller.get("keys").status_code == 401
