"""Routes on the management API."""

from uuid import UUID

import pytest

from portal.core.actors import PlatformRole
from portal.core.ids import uuid7
from tests import factories
from tests.api.callers import Caller, session_caller
from tests.factories import Organisation, unique


@pytest.fixture
def system(database: None) -> Caller:
    return session_caller(factories.administrator(PlatformRole.SYSTEM).user)


def test_route_is_made_read_changed_and_deleted(system: Caller, served: dict[str, UUID]) -> None:
    name, deployment_id = unique("chat"), str(served["deployment_id"])
    made = system.post("routes", {"name": name, "targets": [{"deployment_id": deployment_id}]})
    assert made.status_code == 201, made.content
    route = made.json()
    (target,) = route["targets"]
    assert (route["name"], route["enabled"], route["reserved"]) == (name, True, False)
    assert (target["deployment_id"], target["weight"], target["tier"]) == (deployment_id, 1, 0)
    assert (target["enabled"], target["live"]) == (True, False)
    path = f"routes/{route['id']}"
    assert system.get(path).json() == route
    assert route in system.get("routes").json()["items"]
    change = {"enabled": False, "targets": [{"deployment_id": deployment_id, "weight": 5}]}
    changed = system.call("PATCH", path, change)
    assert changed.status_code == 200
    assert (changed.json()["enabled"], changed.json()["targets"][0]["weight"]) == (False, 5)
    assert system.call("DELETE", path).status_code == 204
    assert system.get(path).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"targets": []}, 400),
        ({"targets": [{"deployment_id": "x"}]}, 400),
        ({"targets": [{"deployment_id": str(uuid7())}]}, 404),
        ({"name": "a b"}, 400),
        ({"name": None}, 400),
    ],
)
def test_make_route_of_bad_fields_is_refused(
    system: Caller, served: dict[str, UUID], change: dict[str, object], status: int
) -> None:
    good = {"name": unique("chat"), "targets": [{"deployment_id": str(served["deployment_id"])}]}
    assert system.post("routes", {**good, **change}).status_code == status


def test_override_is_set_listed_and_withdrawn(
    system: Caller, served: dict[str, UUID], tenant_a: Organisation
) -> None:
    targets = [{"deployment_id": str(served["deployment_id"])}]
    made = system.post("routes", {"name": unique("own"), "reserved": True, "targets": targets})
    path = f"routes/{made.json()['id']}"
    body = {"tenant_id": str(tenant_a.id), "name": "mine"}
    override = system.post(f"{path}/overrides", body)
    assert override.status_code == 201, override.content
    assert override.json()["tenant"] == tenant_a.tenant.name
    assert system.get(f"{path}/overrides").json()["items"] == [override.json()]
    refused = system.call("DELETE", path)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert system.call("DELETE", f"route-overrides/{override.json()['id']}").status_code == 204
    assert system.get(f"{path}/overrides").json()["items"] == []
    assert system.call("DELETE", path).status_code == 204


def test_override_of_an_unknown_tenant_is_refused(system: Caller, served: dict[str, UUID]) -> None:
    body = {"tenant_id": str(uuid7()), "name": "mine"}
    assert system.post(f"routes/{served['route_id']}/overrides", body).status_code == 404
    assert system.get(f"routes/{uuid7()}/overrides").status_code == 404
