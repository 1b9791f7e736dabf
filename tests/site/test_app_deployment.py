"""An app's page says where it runs, and lets it run elsewhere."""

import re
from collections.abc import Iterator

import pytest
from django.test import Client

from knowledge.applications.dify import portal
from knowledge.applications.dify.dsl import SEARCH
from tests.factories import Organisation, unique
from tests.knowledge.apps.dify.bench import AppBench
from tests.knowledge.dify.double import DifyDouble
from tests.live import deploy
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def model(servers: SessionServers, database: None) -> str:
    return deploy(servers, unique("writer")).model


@pytest.fixture
def bench(
    servers: SessionServers, tenant_a: Organisation, model: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AppBench]:
    monkeypatch.setattr(portal, "_address", lambda: "http://127.0.0.1:9")
    with DifyDouble() as double:
        made = AppBench(tenant_a, double, servers.url("gateway"))
        made.model = model
        yield made


@pytest.fixture
def client(tenant_a: Organisation) -> Client:
    client = Client()
    client.force_login(tenant_a.developer.user)
    return client


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return re.sub(r"\s+", " ", answer.content.decode())


def test_app_is_put_into_dify_followed_and_taken_back(bench: AppBench, client: Client) -> None:
    app = bench.app(deployed=False)
    page = f"/admin/knowledge/app/{app.pk}/"
    assert "Run in Dify" in text_of(client, page)
    sent = {"connection_id": str(bench.connection.pk)}
    assert client.post(f"{page}deploy/", sent).status_code == 302
    assert "Not there yet" in text_of(client, page)
    bench.settle()
    shown = text_of(client, page)
    assert "Version 1 answers" in shown
    assert bench.connection.name in shown
    assert bench.there(app).keys[0]["token"] not in shown
    assert client.post(f"{page}undeploy/").status_code == 302
    assert "Runs in Dify" not in text_of(client, page)


def test_app_that_dify_has_no_words_for_is_refused_on_the_form(
    bench: AppBench, client: Client
) -> None:
    app = bench.app(deployed=False, inputs=[{"name": SEARCH}])
    page = f"/admin/knowledge/app/{app.pk}/"
    refused = client.post(f"{page}deploy/", {"connection_id": str(bench.connection.pk)})
    assert refused.status_code == 400
    assert "an input of the portal" in refused.content.decode()


def test_app_whose_step_failed_says_why(bench: AppBench, client: Client) -> None:
    app = bench.app()
    bench.double.fail("denied", path="/apps/imports", times=-1)
    bench.run()
    assert "Dify denies the call" in text_of(client, f"/admin/knowledge/app/{app.pk}/")
