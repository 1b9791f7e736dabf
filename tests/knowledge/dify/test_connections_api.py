"""Connections on the management API and on their pages: keys go in, and never come out."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import translation

from knowledge.dify.channel import Endpoint
from portal.core.actors import PlatformRole
from tests.api.callers import Caller, session_caller
from tests.factories import Organisation, administrator, unique
from tests.knowledge.dify.double import DifyDouble


@pytest.fixture(autouse=True)
def _database(database: None) -> None:
    """All of these tests call the portal."""


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    with translation.override("en"):
        yield


@pytest.fixture
def owner(tenant_a: Organisation) -> Caller:
    return session_caller(tenant_a.owner.user)


def body(endpoint: Endpoint, **changed: Any) -> dict[str, Any]:
    return {
        "name": unique("dify"),
        "base_url": endpoint.base_url,
        "workspace_id": endpoint.workspace_id,
        "console_key": endpoint.console_key,
        "dataset_key": endpoint.dataset_key,
        **changed,
    }


def test_connection_is_made_read_changed_checked_and_deleted(
    dify: DifyDouble, endpoint: Endpoint, owner: Caller
) -> None:
    made = owner.post("connections", body(endpoint))
    assert made.status_code == 201
    path = f"connections/{made.json()['id']}"
    changed = owner.call("PATCH", path, {"drift_policy": "theirs"})
    assert changed.json()["drift_policy"] == "theirs"
    dify.fail("busy")
    checked = owner.post(f"{path}/check", None).json()
    assert (checked["health"], checked["problem"]["code"]) == ("failing", "dify_busy")
    assert owner.post(f"{path}/check", None).json()["problem"] is None
    read, listed = owner.get(path), owner.get("connections")
    assert [row["id"] for row in listed.json()["items"]] == [read.json()["id"]]
    for answer in (made, changed, read, listed):
        for secret in (endpoint.console_key, endpoint.dataset_key):
            assert secret not in answer.content.decode()
    assert owner.call("DELETE", path).status_code == 204
    assert owner.get(path).status_code == 404


def test_connection_that_does_not_work_is_refused_with_the_field_to_blame(
    endpoint: Endpoint, owner: Caller
) -> None:
    refused = owner.post("connections", body(endpoint, dataset_key="dataset-wrong"))
    assert refused.status_code == 400
    problem = refused.json()
    assert (problem["code"], problem["param"]) == ("dify_dataset_key_refused", "dataset_key")
    assert "make one in Dify" in problem["detail"]
    assert owner.get("connections").json()["items"] == []


def test_connection_is_shared_and_licensed_by_the_platform(
    dify: DifyDouble,
    endpoint: Endpoint,
    owner: Caller,
    tenant_a: Organisation,
    tenant_b: Organisation,
) -> None:
    path = f"connections/{owner.post('connections', body(endpoint)).json()['id']}"
    system = session_caller(administrator(PlatformRole.SYSTEM).user, tenant_a.id)
    share = {"tenant_id": str(tenant_b.id), "organisation": "Works Ltd"}
    workspace = {
        "name": "Tenant C",
        "owner_email": "admin@example.com",
        "inner_key": dify.inner_key,
    }
    assert owner.post(f"{path}/share", share).status_code == 403
    assert system.post(f"{path}/share", share).status_code == 204
    [theirs] = session_caller(tenant_b.viewer.user).get("connections").json()["items"]
    assert (theirs["shared"], theirs["organisation"]) == (True, "Works Ltd")
    refused = system.post(f"{path}/workspaces", workspace)
    assert (refused.status_code, refused.json()["code"]) == (409, "dify_licence_unconfirmed")
    confirmed = system.post(f"{path}/licence", {"reference": "AG-17"}).json()
    assert (confirmed["licence_needed"], confirmed["licence_reference"]) == (False, "AG-17")
    made = system.post(f"{path}/workspaces", workspace)
    assert made.status_code == 201
    assert dify.workspaces[made.json()["id"]].name == "Tenant C"


@pytest.mark.parametrize(
    ("language", "works", "wrong"),
    [
        ("en", "Dify answers, and both keys work.", "Dify refuses the dataset key"),
        ("zh-hans", "两个密钥均有效", "Dify 拒绝该知识库密钥"),
    ],
)
def test_pages_say_in_words_how_a_connection_is(
    dify: DifyDouble,
    endpoint: Endpoint,
    tenant_a: Organisation,
    language: str,
    works: str,
    wrong: str,
) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(tenant_a.owner.user)
    client.cookies["django_language"] = language
    pages = "/admin/knowledge/connection/"
    del dify.workspaces[dify.other.id]
    sent = body(endpoint, drift_policy="ask")
    refused = client.post(f"{pages}add/", {**sent, "dataset_key": "dataset-wrong"})
    assert refused.status_code == 400
    assert wrong in refused.content.decode()
    # What was typed as a key is not sent back.
    assert endpoint.console_key not in refused.content.decode()
    made = client.post(f"{pages}add/", sent)
    assert made.status_code == 302
    assert works in client.get(pages).content.decode()
    dify.own.keys.clear()
    tested = client.post(f"{made.url}check/", follow=True)  # type: ignore[attr-defined]
    assert wrong in tested.content.decode()
    assert wrong in client.get(pages).content.decode()
    # A new name asks nothing of Dify, and a key that is left out stays.
    edited = client.post(f"{made.url}edit/", {**sent, "name": "Renamed", "console_key": ""})  # type: ignore[attr-defined]
    assert edited.status_code == 302
    assert "Renamed" in client.get(pages).content.decode()
