"""Pages of apps: made, changed, published, compared, tried, in both languages."""

import re
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation

from knowledge.applications import selectors
from knowledge.models import App
from knowledge.services import create_knowledge_base
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, api_key, unique
from tests.knowledge.apps.support import make_app
from tests.live import deploy
from tests.servers import SessionServers

LIST = "/admin/knowledge/app/"


@pytest.fixture(scope="module")
def model(servers: SessionServers, database: None) -> str:
    return deploy(servers, unique("writer")).model


@pytest.fixture
def client(tenant_a: Organisation) -> Client:
    client = Client()
    client.force_login(tenant_a.developer.user)
    return client


def text_of(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, path
    return re.sub(r"\s+", " ", answer.content.decode())


def test_app_is_made_edited_published_and_compared(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    base = create_knowledge_base(context=tenant_a.context, name="Rules", embedding_model="")
    assert "No app yet" in text_of(client, LIST)
    fields = {
        "slug": "handbook",
        "name": "Handbook",
        "mode": "chat",
        "model": model,
        "knowledge": [str(base.pk)],
        "prompt": "From {{context}}: {{query}}",
        "inputs": '[{"name": "place", "required": false}]',
    }
    made = client.post(f"{LIST}add/", fields)
    assert made.status_code == 302, made.content.decode()
    page = made["Location"]
    assert "Nobody can call it" in text_of(client, page)
    assert client.post(f"{page}publish/", {"number": "1"}).status_code == 302
    assert "POST /api/v1/apps/handbook/chat" in text_of(client, page)
    shown = text_of(client, f"{page}draft/")
    assert "From {{context}}: {{query}}" in shown
    changed = {**fields, "prompt": "By {{context}}: {{query}}", "note": "shorter"}
    assert client.post(f"{page}draft/", changed).status_code == 302
    compared = text_of(client, f"{page}?version=2")
    assert "<del>- &quot;prompt&quot;: &quot;From {{context}}: {{query}}&quot;" in compared
    assert "<ins>+ &quot;prompt&quot;: &quot;By {{context}}: {{query}}&quot;" in compared
    assert "Try the draft" in compared
    with tenant_scope(tenant_a.context):
        app = App.objects.get()
        spec = selectors.get_version(app, 2).spec
    assert [one["name"] for one in spec["inputs"]] == ["place"]
    assert (app.latest, app.published) == (2, 1)


def test_draft_keeps_what_the_form_does_not_show(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    base = create_knowledge_base(context=tenant_a.context, name="Rules", embedding_model="")
    knowledge = [{"knowledge_base_id": str(base.pk), "top_k": 2}]
    app = make_app(
        tenant_a, model, base=base, knowledge=knowledge, sampling={"top_p": 0.5}, history=2
    )
    sent = {"model": model, "knowledge": [str(base.pk)], "prompt": "{{context}} {{query}}"}
    assert client.post(f"{LIST}{app.pk}/draft/", sent).status_code == 302
    with tenant_scope(tenant_a.context):
        spec = selectors.get_version(app, 2).spec
    assert (spec["history"], spec["sampling"], spec["knowledge"]) == (
        2,
        {"top_p": 0.5},
        knowledge,
    )


def test_wrong_specification_is_told_beside_its_field(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    app = make_app(tenant_a, model)
    path = f"{LIST}{app.pk}/draft/"
    answer = client.post(path, {"model": model, "prompt": "{{nobody}} {{query}}"})
    assert answer.status_code == 400
    assert "has a place that is no input: {{nobody}}" in answer.content.decode()
    answer = client.post(path, {"model": model, "prompt": "{{query}}", "inputs": "{"})
    assert "It is not JSON." in answer.content.decode()


def test_try_page_offers_inputs_and_drafts(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    inputs = [{"name": "n", "type": "number", "label": "Amount"},
              {"name": "kind", "type": "choice", "options": ["a", "b"]}]  # fmt: skip
    app = make_app(tenant_a, model, mode="run", inputs=inputs, prompt="{{n}} {{kind}}")
    page = text_of(client, f"{LIST}{app.pk}/try/")
    assert "Amount" in page
    assert "<option>b</option>" in page
    assert f'data-url="/api/v1/apps/{app.slug}/run"' in page
    text_of(client, f"{LIST}{app.pk}/try/?version=7", 404)


def test_viewer_reads_and_changes_nothing(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    viewer = Client()
    viewer.force_login(tenant_a.viewer.user)
    page = text_of(viewer, f"{LIST}{app.pk}/")
    assert "Withdraw" not in page
    assert "Try it" not in page
    text_of(viewer, f"{LIST}{app.pk}/try/", 403)
    assert viewer.post(f"{LIST}{app.pk}/withdraw/").status_code == 403


def test_pages_of_apps_speak_chinese(tenant_a: Organisation, client: Client, model: str) -> None:
    app = make_app(tenant_a, model)
    client.cookies["django_language"] = "zh-hans"
    with translation.override("zh-hans"):
        assert "应用" in text_of(client, LIST)
        assert "版本" in text_of(client, f"{LIST}{app.pk}/")
        assert "保存为新版本" in text_of(client, f"{LIST}{app.pk}/draft/")
        assert "新对话" in text_of(client, f"{LIST}{app.pk}/try/")


def test_keys_that_may_call_an_app_are_chosen(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    app = make_app(tenant_a, model)
    chosen = api_key(tenant_a, scopes=["apps"], name="Till").api_key
    api_key(tenant_a, scopes=["inference"], name="Another")
    page = f"{LIST}{app.pk}/edit/"
    shown = text_of(client, page)
    assert ("Till (" in shown, "Another (" in shown) == (True, False)
    fields = {"name": app.name, "keep_days": "30"}
    assert client.post(page, fields | {"allowed_keys": [str(chosen.pk)]}).status_code == 302
    assert allowed_keys(tenant_a, app) == [chosen.pk]
    assert "checked" in text_of(client, page)
    assert client.post(page, fields).status_code == 302
    assert allowed_keys(tenant_a, app) == []


def allowed_keys(tenant: Organisation, app: App) -> list[UUID]:
    with tenant_scope(tenant.context):
        return list(App.objects.get(pk=app.pk).allowed_keys)


def test_way_of_searching_is_a_new_version(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    base = create_knowledge_base(context=tenant_a.context, name="Rules", embedding_model="")
    app = make_app(tenant_a, model, base=base)
    page = f"{LIST}{app.pk}/search/"
    assert "Rules: Passages" in text_of(client, page)
    wrong = client.post(page, {"top_k_0": "1000"})
    assert wrong.status_code == 400
    given = {"method_0": "keyword", "top_k_0": "3", "score_threshold_0": "0.5"}
    assert client.post(page, given).status_code == 302
    with tenant_scope(tenant_a.context):
        (used,) = selectors.get_version(app, app.latest + 1).spec["knowledge"]
    assert used == {
        "knowledge_base_id": str(base.pk),
        "method": "keyword",
        "top_k": 3,
        "score_threshold": 0.5,
        "rerank": False,
    }
    assert 'value="0.5"' in text_of(client, page)
    assert text_of(client, f"{LIST}{make_app(tenant_a, model).pk}/search/", 404)


def test_rating_needs_the_sessions_own_key(
    tenant_a: Organisation, client: Client, model: str
) -> None:
    app = make_app(tenant_a, model)
    page = f"{LIST}{app.pk}/rate/{uuid7()}/"
    made = client.post(reverse("admin:playground_key")).json()
    other = api_key(tenant_a, scopes=["inference"]).token
    assert client.get(page).status_code == 405
    for token, status in (("", 401), (other, 403), (made["token"], 404)):
        answer = client.post(
            page,
            {"rating": 1},
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == status, answer.content
    wrong = client.post(
        page,
        "[]",
        content_type="application/json",
        headers={"Authorization": f"Bearer {made['token']}"},
    )
    assert (wrong.status_code, "must be 1, 0 or -1" in wrong.json()["detail"]) == (400, True)
