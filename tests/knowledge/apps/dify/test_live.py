"""The whole way on a running portal: an app goes to Dify, answers, is upgraded and rolled back."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from knowledge.applications import services
from knowledge.applications.dify import portal
from knowledge.applications.dify.deployed import standing_of
from knowledge.applications.dify.services import deploy_app
from knowledge.dify.channel import Endpoint
from knowledge.models import App, PortalInDify, SyncState
from knowledge.services import add_text, create_knowledge_base
from portal.core.tenancy import tenant_scope
from tenants.models import LedgerEntry
from tests import factories
from tests.factories import Organisation, unique
from tests.knowledge.apps.support import make_app
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.support import index
from tests.knowledge.sync.bench import connect
from tests.live import IDLE_SLOTS, LivePortal, Programs
from tests.waiting import eventually


@pytest.fixture(scope="module", autouse=True)
def keeping(live_portal: LivePortal) -> Iterator[None]:
    """An io worker that keeps connections in step."""
    programs = Programs(live_portal.servers)
    slots = IDLE_SLOTS | {"SYNC_SLOTS": "2"}
    programs.io(name=unique("io-dify"), PORTAL_URL=live_portal.base_url, **slots)
    yield
    programs.stop()


@pytest.fixture
def caller(
    live_portal: LivePortal, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """A business system; Dify is told of the portal that runs."""
    monkeypatch.setattr(portal, "_address", lambda: live_portal.base_url)
    with live_portal.client(factories.api_key(tenant_a, scopes=["apps"]).token) as client:
        yield client


@pytest.fixture
def dify() -> Iterator[DifyDouble]:
    """A Dify whose models answer as their credentials say."""
    with DifyDouble() as double:
        double.apps.model.says = None
        yield double


def deploy(tenant: Organisation, app: App, dify: DifyDouble) -> None:
    endpoint = Endpoint(dify.url, dify.own.id, dify.console_key, dify.dataset_key)
    connection = connect(tenant.owner.context, endpoint)
    deploy_app(context=tenant.owner.context, app_id=app.pk, connection_id=connection.pk)


def wait_live(tenant: Organisation, app: App, version: int) -> None:
    def live() -> bool:
        with tenant_scope(tenant.context):
            found = standing_of(app)
        assert found is not None
        return (found.live, found.state) == (version, SyncState.IN_STEP)

    eventually(live, within=30)


def ask(caller: httpx.Client, app: App, query: str, **more: Any) -> Any:
    answer = caller.post(f"/api/v1/apps/{app.slug}/chat", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_app_goes_to_dify_is_upgraded_and_rolled_back_under_one_address(
    live_portal: LivePortal, tenant_a: Organisation, caller: httpx.Client, dify: DifyDouble
) -> None:
    model, context = live_portal.fake.model, tenant_a.owner.context
    app = make_app(tenant_a, model)
    deploy(tenant_a, app, dify)
    wait_live(tenant_a, app, 1)
    first = ask(caller, app, "Hello")
    assert first["answer"]
    assert dify.apps.model.asked[-1][-1]["content"] == "Hello"
    spec = {"model": model, "prompt": "Shortly: {{query}}"}
    services.add_version(context=context, app_id=app.pk, spec=spec)
    services.publish_app(context=context, app_id=app.pk)
    wait_live(tenant_a, app, 2)
    again = ask(caller, app, "Again", conversation_id=first["conversation_id"])
    assert again["conversation_id"] == first["conversation_id"]
    assert [m["content"] for m in dify.apps.model.asked[-1]] == [
        "Hello", first["answer"], "Shortly: Again",
    ]  # fmt: skip
    services.publish_app(context=context, app_id=app.pk, number=1)
    wait_live(tenant_a, app, 1)
    ask(caller, app, "Once more")
    assert dify.apps.model.asked[-1][-1]["content"] == "Once more"
    assert len(dify.own.apps) == 1
    with tenant_scope(tenant_a.context):
        key = PortalInDify.objects.get().api_key_id
        spent = list(LedgerEntry.objects.filter(api_key_id=key))
    assert len(spent) == 3
    assert sum(entry.completion_tokens for entry in spent) > 0


def test_answer_streams_and_cites_what_the_portal_keeps_itself(
    live_portal: LivePortal, tenant_a: Organisation, caller: httpx.Client, dify: DifyDouble
) -> None:
    context = tenant_a.owner.context
    base = create_knowledge_base(context=context, name="Rules", embedding_model="")
    add_text(context=context, knowledge_base_id=base.pk, name="leave.md", text="Thirty days.")
    index(tenant_a)
    app = make_app(tenant_a, live_portal.fake.model, base=base)
    deploy(tenant_a, app, dify)
    wait_live(tenant_a, app, 1)
    body = {"query": "How many days?", "stream": True}
    with caller.stream("POST", f"/api/v1/apps/{app.slug}/chat", json=body) as answer:
        text = answer.read().decode()
    kinds = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event")]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["usage", "done"]
    assert '"document":"leave.md"' in text.replace(" ", "")
    assert str(base.pk) in text


def test_draft_of_an_app_in_dify_is_tried_in_the_portal(
    live_portal: LivePortal, tenant_a: Organisation, caller: httpx.Client, dify: DifyDouble
) -> None:
    app = make_app(tenant_a, live_portal.fake.model)
    deploy(tenant_a, app, dify)
    spec = {"model": live_portal.fake.model, "prompt": "Shortly: {{query}}"}
    services.add_version(context=tenant_a.owner.context, app_id=app.pk, spec=spec)
    token = factories.api_key(tenant_a, scopes=["apps:write"]).token
    with live_portal.client(token) as developer:
        tried = ask(developer, app, "Hello", version=2)
    assert (tried["version"], bool(tried["answer"])) == (2, True)
    assert dify.apps.model.asked == []


def test_dify_that_is_down_is_a_503_in_words(
    live_portal: LivePortal, tenant_a: Organisation, caller: httpx.Client, dify: DifyDouble
) -> None:
    app = make_app(tenant_a, live_portal.fake.model)
    url = f"/api/v1/apps/{app.slug}/chat"
    deploy(tenant_a, app, dify)
    wait_live(tenant_a, app, 1)
    dify.fail("bad_gateway", path="/v1/", times=-1)
    refused = caller.post(url, json={"query": "Hello"})
    assert (refused.status_code, refused.json()["code"]) == (503, "app_away")
    dify.heal()
    assert ask(caller, app, "Hello")["answer"]
