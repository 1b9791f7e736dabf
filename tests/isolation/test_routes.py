"""No route of either plane tells one tenant anything of another, whatever role asks."""

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import psycopg
import pytest
from django.db.models import QuerySet
from django.http import HttpResponse
from django.test import Client
from psycopg import sql

from inference.gateway.app import routes as gateway_routes
from knowledge.applications.gateway import app_routes
from portal.core.actors import PlatformRole, TenantRole
from portal.core.ids import uuid7
from portal.health import health_routes
from portal.metrics import metrics_routes
from tenants.permissions import Scope
from tests import factories
from tests.isolation.routes import (
    APP_GATEWAY,
    CONTROL_PLANE,
    DATA_PLANE,
    Kind,
    control_plane_routes,
)
from tests.isolation.rows import Populated

API_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PAGE_METHODS = ("GET", "POST")

# What each write needs before it looks for the object.
BODY = {
    "role": "viewer",
    "reason": "a test",
    "name": "x",
    "confirm": "on",
    "overlap_seconds": 3600,
}
BODIES: dict[str, dict[str, Any]] = {
    "api/v1/connections/<str:connection_id>/sync": {"paused": True},
    "api/v1/remote-objects/<str:object_id>/decide": {"decision": "ours"},
    "api/v1/members/<str:member_id>": {"role": "viewer"},
    "api/v1/keys/<str:key_id>": {"allowed_networks": []},
    "api/v1/keys/<str:key_id>/revoke": {"reason": "a test"},
    "api/v1/quotas/<str:quota_id>": {"tokens_day": "5"},
    "api/v1/knowledge-bases/<str:base_id>/retrieve": {"query": "seen"},
    "api/v1/apps/<str:app>/versions": {"spec": {"model": "m"}},
    "api/v1/apps/<str:app>/messages/<str:message_id>/feedback": {"rating": "like"},
    "api/v1/knowledge-bases/<str:base_id>/documents": {"name": "x", "text": "x"},
    "api/v1/knowledge-bases/<str:base_id>/sources": {
        "name": "x",
        "kind": "folder",
        "settings": {},
    },
    "api/v1/tenants/<str:tenant_id>": {"name": "x"},
    "api/v1/tenants/<str:tenant_id>/suspend": {"reason": "a test"},
    "api/v1/tenants/<str:tenant_id>/resume": {"reason": "a test"},
    "api/v1/tenants/<str:tenant_id>/close": {"reason": "a test", "name": "x"},
    "api/v1/tenants/<str:tenant_id>/reopen": {"reason": "a test"},
    "api/v1/connections/<str:connection_id>/share": {
        "tenant_id": str(uuid7()),
        "organisation": "x",
    },
    "api/v1/connections/<str:connection_id>/licence": {"reference": "a test"},
    "api/v1/connections/<str:connection_id>/workspaces": {
        "name": "x",
        "owner_email": "x@example.com",
        "inner_key": "a-key-of-a-test",
    },
}
# Pages of a state that the tenants, people and jobs of these tests are not in, the result of a job
# that another key submitted, and what administrators do who have entered the tenant.
OF_ANOTHER_STATE = {
    "admin/knowledge/app/<uuid:object_id>/delete/",
    "admin/knowledge/app/<uuid:object_id>/search/",
    "admin/knowledge/app/<uuid:object_id>/deploy/",
    "admin/knowledge/connection/<uuid:object_id>/sync/",
    "admin/knowledge/connection/<uuid:object_id>/pause/",
    "admin/knowledge/remoteobject/<uuid:object_id>/ours/",
    "admin/knowledge/remoteobject/<uuid:object_id>/theirs/",
    "admin/knowledge/document/<uuid:object_id>/enable/",
    "admin/knowledge/document/<uuid:object_id>/restore/",
    "admin/knowledge/trigger/<uuid:object_id>/resume/",
    "admin/knowledge/documentsource/<uuid:object_id>/resume/",
    "admin/knowledge/documentsource/<uuid:object_id>/database/",
    "admin/knowledge/connection/<uuid:object_id>/share/",
    "admin/knowledge/connection/<uuid:object_id>/licence/",
    "admin/knowledge/connection/<uuid:object_id>/workspace/",
    "api/v1/jobs/<str:job_id>/result",
    "admin/inference/batch/<uuid:object_id>/cancel/",
    "admin/inference/job/<uuid:object_id>/cancel/",
    "admin/tenants/serviceaccount/<uuid:object_id>/enable/",
    "admin/tenants/tenant/<uuid:object_id>/resume/",
    "admin/tenants/tenant/<uuid:object_id>/reopen/",
    "admin/tenants/tenantexport/<uuid:object_id>/file/",
    "api/v1/tenants/<str:tenant_id>/export/file",
    "admin/tenants/user/<uuid:object_id>/reactivate/",
}
ROUTES_OF = {
    kind: [route for route, shows in CONTROL_PLANE.items() if shows.kind == kind] for kind in Kind
}
PARAMETER = re.compile(r"<\w+:\w+>")

# An administrator of the platform sees these of every tenant, by the permission table.
OF_ADMINISTRATORS = {"tenants_tenant", "tenants_user", "audit_event", "inference_routeoverride"}
# What was said to an app is read by the key that said it, of which there is none here.
OF_ONE_KEY = {"api/v1/apps/<str:app>/conversations/<str:conversation_id>/messages"}
# The security administrator revokes a leaked key of any tenant, without entering it.
ACROSS_TENANTS = {("api/v1/keys/<str:key_id>/revoke", "security")}


@dataclass(frozen=True)
class Caller:
    """Somebody of tenant A, or of the platform, and the client they call with."""

    name: str
    client: Client
    platform: bool = False

    def reaches(self, route: str) -> bool:
        """Whether the caller's credential counts on the route at all."""
        return self.name != "API key" or route.startswith("api/")


@pytest.fixture(scope="module")
def members(full_a: Populated) -> list[Caller]:
    """Tenant A's members by session, and A's API key that may do everything."""
    callers = []
    for role in TenantRole:
        client = Client(raise_request_exception=False)
        client.force_login(full_a.organisation.member(role).user)
        callers.append(Caller(role.value, client))
    key = factories.api_key(full_a.organisation, scopes=[scope.value for scope in Scope])
    bearer = {"Authorization": f"Bearer {key.token}"}
    callers.append(Caller("API key", Client(raise_request_exception=False, headers=bearer)))
    return callers


@pytest.fixture(scope="module")
def administrators(full_a: Populated) -> list[Caller]:
    """The platform's administrators, none of whom has entered a tenant."""
    callers = []
    for role in PlatformRole:
        client = Client(raise_request_exception=False)
        client.force_login(factories.administrator(role).user)
        callers.append(Caller(role.value, client, platform=True))
    return callers


def _methods(route: str) -> tuple[str, ...]:
    return API_METHODS if route.startswith("api/") else PAGE_METHODS


def _pairs(routes: list[str], *, writes: bool = False) -> list[Any]:
    """Every route with every method, as parameters."""
    return [
        pytest.param(route, method, id=f"{method} {route}")
        for route in routes
        for method in _methods(route)
        if not writes or method != "GET"
    ]


def _call(
    caller: Caller, method: str, path: str, data: dict[str, Any] | None = None
) -> HttpResponse:
    if path.startswith("api/"):
        return caller.client.generic(  # type: ignore[return-value]
            method, f"/{path}", _json(data or {}), content_type="application/json"
        )
    if method == "GET":
        return caller.client.get(f"/{path}")  # type: ignore[return-value]
    return caller.client.post(f"/{path}", data or {})  # type: ignore[return-value]


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, default=str).encode()


def _body(response: Any) -> str:
    streaming = getattr(response, "streaming", False)
    content = b"".join(response) if streaming else response.content
    return content.decode(errors="replace")


def _comparable(response: HttpResponse, path_id: UUID) -> tuple[int, str]:
    """Status and body, without what differs by the call itself."""
    body = _body(response).replace(str(path_id), "ID")
    body = re.sub(r"req-[0-9a-f]{32}", "REQUEST", body)
    body = re.sub(r'value="[A-Za-z0-9]{64}"', "TOKEN", body)
    return response.status_code, body


# A portal that runs beside the test writes these by itself, every few seconds.
BY_THE_CLOCK = {"tenants_usagebucket", "tenants_quotawarning"}


def _snapshot(superuser: psycopg.Connection, populated: Populated) -> dict[str, list[Any]]:
    """All rows of a tenant, in every table of tenants' rows that calls write."""
    found = {}
    for table in populated.keys.keys() - BY_THE_CLOCK:
        column = "id" if table == "tenants_tenant" else "tenant_id"
        query = sql.SQL("SELECT * FROM {} WHERE {} = %s ORDER BY 1, 2").format(
            sql.Identifier(table), sql.Identifier(column)
        )
        found[table] = superuser.execute(query, [populated.id]).fetchall()
    return found


def _marks(populated: Populated) -> set[str]:
    """Texts that can only come from this tenant's rows."""
    organisation = populated.organisation
    users = [organisation.member(role).user for role in TenantRole]
    marks = {str(key) for _, key in populated.keys.values()}
    marks |= {str(user.id) for user in users} | {user.email for user in users}
    return marks | {str(populated.id), organisation.tenant.slug, organisation.tenant.name}


def test_every_route_of_the_control_plane_is_classified() -> None:
    assert set(control_plane_routes()) == set(CONTROL_PLANE)


def test_every_route_of_the_data_plane_is_classified() -> None:
    every = [*gateway_routes(Mock()), *health_routes(Mock()), *metrics_routes(Mock())]
    found = {route.path for route in every}
    assert found == set(DATA_PLANE)


def test_every_route_of_the_app_gateway_is_classified() -> None:
    assert {route.path for route in app_routes(Mock(), Mock())} == set(APP_GATEWAY)


def test_every_route_with_an_id_is_an_object_or_the_platforms() -> None:
    with_id = {route for route in CONTROL_PLANE if PARAMETER.search(route)}
    assert with_id == {
        route
        for route, shows in CONTROL_PLANE.items()
        if shows.kind == Kind.OBJECT or (shows.kind == Kind.PLATFORM and PARAMETER.search(route))
    }


@pytest.mark.parametrize(("route", "method"), _pairs(ROUTES_OF[Kind.OBJECT]))
def test_call_with_another_tenants_id_answers_as_if_there_were_none(
    full_b: Populated,
    members: list[Caller],
    administrators: list[Caller],
    superuser_of_module: psycopg.Connection,
    route: str,
    method: str,
) -> None:
    table = CONTROL_PLANE[route].table
    theirs = full_b.organisation.viewer.user.id if table == "tenants_user" else None
    theirs = theirs or full_b.keys[table][1]
    missing, body = uuid7(), BODIES.get(route, BODY)
    before = _snapshot(superuser_of_module, full_b)
    callers = members if table in OF_ADMINISTRATORS else [*members, *administrators]
    for caller in callers:
        if not caller.reaches(route) or (route, caller.name) in ACROSS_TENANTS:
            continue
        there = _call(caller, method, PARAMETER.sub(str(theirs), route), body)
        nowhere = _call(caller, method, PARAMETER.sub(str(missing), route), body)
        assert _comparable(there, theirs) == _comparable(nowhere, missing), caller.name
        assert there.status_code in (403, 404, 405), (caller.name, there.status_code)
    assert _snapshot(superuser_of_module, full_b) == before


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES_OF[Kind.OBJECT] if route not in OF_ANOTHER_STATE | OF_ONE_KEY],
)
def test_call_with_own_id_is_answered_to_somebody(
    full_a: Populated, members: list[Caller], administrators: list[Caller], route: str
) -> None:
    """The classification is not vacuous: each object route has a caller whom it serves."""
    table = CONTROL_PLANE[route].table
    own = full_a.organisation.viewer.user.id if table == "tenants_user" else None
    path = PARAMETER.sub(str(own or full_a.keys[table][1]), route)
    statuses = set()
    for caller in [*members, *administrators]:
        if caller.reaches(route):
            # Closed, for an open stream would count in this process to its end.
            with closing(_call(caller, "GET", path)) as response:
                statuses.add(response.status_code)
    assert statuses & {200, 405}, statuses


@pytest.mark.parametrize("route", ROUTES_OF[Kind.LISTING] + ROUTES_OF[Kind.PLATFORM])
def test_read_list_shows_nothing_of_another_tenant(
    full_b: Populated, members: list[Caller], route: str
) -> None:
    path = PARAMETER.sub(str(uuid7()), route)
    for caller in members:
        body = _body(_call(caller, "GET", path))
        assert [mark for mark in _marks(full_b) if mark in body] == [], caller.name


@contextmanager
def _without_tenant_filters() -> Iterator[None]:
    """Every filter by tenant is forgotten, as a careless change would forget one."""
    original = QuerySet._filter_or_exclude_inplace  # type: ignore[attr-defined]

    def forgetful(self: Any, negate: bool, args: Any, kwargs: dict[str, Any]) -> None:
        kept = {
            name: value
            for name, value in kwargs.items()
            if name.split("__")[0] not in ("tenant", "tenant_id")
        }
        original(self, negate, args, kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuerySet, "_filter_or_exclude_inplace", forgetful)
        yield


@pytest.mark.parametrize("route", ROUTES_OF[Kind.LISTING])
def test_read_list_with_every_tenant_filter_forgotten_shows_nothing_of_another_tenant(
    full_b: Populated, members: list[Caller], route: str
) -> None:
    for caller in members:
        with _without_tenant_filters():
            body = _body(_call(caller, "GET", route))
        assert [mark for mark in _marks(full_b) if mark in body] == [], caller.name


# Names under which a list might take an id.
FILTERS = ("tenant", "tenant_id", "user", "user_id", "member", "api_key", "api_key_id", "key",
           "job", "job_id", "object_id", "actor", "actor_id", "id", "q", "cursor", "before",
           "after", "ordering", "o", "next")  # fmt: skip


@pytest.mark.parametrize("route", ROUTES_OF[Kind.LISTING])
def test_filter_list_by_another_tenants_ids_shows_nothing_of_it(
    full_b: Populated, members: list[Caller], route: str
) -> None:
    given = {str(full_b.id), str(full_b.keys["tenants_apikey"][1])}
    for value in given:
        query = "&".join(f"{name}={value}" for name in FILTERS)
        for caller in members:
            response = caller.client.get(f"/{route}?{query}")
            assert response.status_code < 500
            found = [mark for mark in _marks(full_b) - {value} if mark in _body(response)]
            assert found == [], caller.name


BODY_NAMES = ("tenant", "tenant_id", "user", "user_id", "api_key", "api_key_id", "member_id",
              "id", "key_id", "object_id")  # fmt: skip


@pytest.mark.parametrize(("route", "method"), _pairs(ROUTES_OF[Kind.LISTING], writes=True))
def test_write_with_another_tenants_ids_in_the_body_changes_nothing_of_it(
    full_b: Populated,
    members: list[Caller],
    superuser_of_module: psycopg.Connection,
    route: str,
    method: str,
) -> None:
    before = _snapshot(superuser_of_module, full_b)
    for theirs in (full_b.id, full_b.keys["tenants_apikey"][1], full_b.organisation.owner.user.id):
        data = dict.fromkeys(BODY_NAMES, theirs) | {"name": "x", "tokens_day": 5, "role": "owner"}
        for caller in members:
            if caller.reaches(route):
                response = _call(caller, method, route, data)
                assert response.status_code < 500, caller.name
                found = [m for m in _marks(full_b) - {str(theirs)} if m in _body(response)]
                assert found == [], caller.name
    assert _snapshot(superuser_of_module, full_b) == before


def test_choose_another_tenant_as_active_is_refused(
    full_b: Populated, members: list[Caller]
) -> None:
    for caller in members[:-1]:
        response = caller.client.post("/admin/tenant/choose/", {"tenant": str(full_b.id)})
        assert response.status_code == 404, caller.name
        body = _body(caller.client.get("/admin/"))
        assert full_b.organisation.tenant.name not in body


def test_session_that_names_a_tenant_of_others_is_not_let_in(
    full_a: Populated, full_b: Populated
) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(full_a.organisation.owner.user)
    session = client.session
    session["portal.active_tenant"] = str(full_b.id)
    session.save()
    for route in ROUTES_OF[Kind.LISTING]:
        body = _body(client.get(f"/{route}"))
        assert [mark for mark in _marks(full_b) if mark in body] == [], route
