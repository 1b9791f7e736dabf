"""Where an app runs, on the management API."""

import json
from typing import Any

import pytest
from django.test import Client

from knowledge.applications.dify.dsl import SEARCH
from tests import factories
from tests.factories import Organisation
from tests.knowledge.apps.dify.bench import AppBench


def call(tenant: Organisation, method: str, app: Any, body: Any = None) -> Any:
    token = factories.api_key(tenant, scopes=["apps:read", "apps:write"]).token
    return Client().generic(
        method,
        f"/api/v1/apps/{app.slug}/deployment",
        data="" if body is None else json.dumps(body),
        content_type="application/json",
        headers={"authorization": f"Bearer {token}"},
    )


def test_app_is_deployed_followed_and_taken_back(bench: AppBench) -> None:
    app = bench.app(deployed=False)
    assert call(bench.tenant, "GET", app).json()["runs"] == "portal"
    sent = {"connection_id": str(bench.connection.pk)}
    made = call(bench.tenant, "PUT", app, sent)
    assert (made.status_code, made.json()["state"], made.json()["live"]) == (202, "waiting", 0)
    again = call(bench.tenant, "PUT", app, sent)
    assert again.status_code == 409
    bench.settle()
    shown = call(bench.tenant, "GET", app).json()
    assert (shown["runs"], shown["state"], shown["live"]) == ("dify", "in_step", 1)
    assert shown["remote_id"] in bench.double.own.apps
    assert bench.there(app).keys[0]["token"] not in str(shown)
    assert call(bench.tenant, "DELETE", app).json()["runs"] == "portal"


def test_app_that_dify_has_no_words_for_is_refused_by_its_field(bench: AppBench) -> None:
    app = bench.app(deployed=False, inputs=[{"name": SEARCH}])
    refused = call(bench.tenant, "PUT", app, {"connection_id": str(bench.connection.pk)})
    assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (
        400, "app_not_for_dify", "inputs",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_tenants_app_is_not_there(
    bench: AppBench, tenant_b: Organisation, method: str
) -> None:
    app = bench.app()
    body = {"connection_id": str(bench.connection.pk)} if method == "PUT" else None
    assert call(tenant_b, method, app, body).status_code == 404
