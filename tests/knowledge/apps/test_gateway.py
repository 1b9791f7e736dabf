"""Apps as business systems call them, on the whole running portal with the fake engine."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from inference.models import Job, JobState
from knowledge.models import AppMessage, AppUsage, Conversation, KnowledgeBase, MessageState
from knowledge.services import add_text, create_knowledge_base
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.models import LedgerEntry
from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation, unique
from tests.knowledge.apps.support import make_app
from tests.knowledge.support import index
from tests.live import LivePortal
from tests.waiting import eventually

Events = list[tuple[str, Any]]


@pytest.fixture
def caller(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[httpx.Client]:
    token = factories.api_key(tenant_a, scopes=["apps"]).token
    with live_portal.client(token) as client:
        yield client


def grounded(tenant: Organisation, *texts: str) -> KnowledgeBase:
    base = create_knowledge_base(context=tenant.context, name=unique("rules"), embedding_model="")
    for number, text in enumerate(texts):
        add_text(context=tenant.context, knowledge_base_id=base.pk, name=f"{number}.txt", text=text)
    index(tenant)
    return base


def events_of(body: str) -> Events:
    found = []
    for block in filter(None, body.split("\n\n")):
        if not block.startswith(":"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def asked(caller: httpx.Client, app: str, query: str = "Hello", **more: Any) -> dict[str, Any]:
    answer = caller.post(f"/api/v1/apps/{app}/chat", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def counts(tenant: Organisation) -> tuple[int, int, int]:
    with tenant_scope(tenant.context):
        return Job.objects.count(), Conversation.objects.count(), AppMessage.objects.count()


def test_chat_answers_with_sources_and_is_charged_to_the_caller(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    base = grounded(tenant_a, "Lunch is served from noon to two.", "Visitors wear a badge.")
    app = make_app(
        tenant_a, live_portal.fake.model, base=base, sampling={"max_tokens": 5}, disclaimer="Mind."
    )
    body = asked(caller, app.slug, "When is lunch served?")
    assert len(body["answer"].split()) == 5
    assert [s["document"] for s in body["sources"]] == ["0.txt"]
    assert 0 < body["sources"][0]["score"] <= 1
    assert (body["finish_reason"], body["disclaimer"], body["version"]) == ("length", "Mind.", 1)
    assert body["usage"]["completion_tokens"] == 5
    with tenant_scope(tenant_a.context):
        job = Job.objects.get()
        assert (job.kind, job.state) == ("app", JobState.SUCCEEDED)
        assert job.parameters["metadata"] == {"app": app.slug, "app_version": "1"}
        entry = LedgerEntry.objects.get(job_id=job.pk)
        usage = AppUsage.objects.get()
    assert entry.completion_tokens == 5
    assert (usage.calls, usage.failures, usage.completion_tokens) == (1, 0, 5)


def test_chat_streams_named_events_in_order(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    base = grounded(tenant_a, "Lunch is served from noon to two.")
    app = make_app(tenant_a, live_portal.fake.model, base=base, sampling={"max_tokens": 6})
    answer = caller.post(f"/api/v1/apps/{app.slug}/chat", json={"query": "lunch", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    names = [name for name, _ in events]
    assert names[:2] == ["started", "sources"]
    assert names[-2:] == ["usage", "done"]
    assert set(names[2:-2]) == {"delta"}
    text = "".join(data["text"] for name, data in events if name == "delta")
    assert len(text.split()) == 6
    assert events[-1][1] == {"finish_reason": "length"}
    counted = 'freehold_http_requests_total{status="200",view="app-chat"}'
    with live_portal.client() as monitor:
        eventually(lambda: counted in monitor.get("/metrics").text, within=5)


def test_chat_goes_on_with_what_was_said_before(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 3})
    first = asked(caller, app.slug, "The first question", user="ann")
    more = {"conversation_id": first["conversation_id"], "user": "ann"}
    second = asked(caller, app.slug, "And then?", **more)
    assert second["conversation_id"] == first["conversation_id"]
    longer = second["usage"]["prompt_tokens"] - first["usage"]["prompt_tokens"]
    assert longer > len("every token here")
    path = f"/api/v1/apps/{app.slug}/conversations"
    (listed,) = caller.get(path, params={"user": "ann"}).json()["items"]
    assert (listed["title"], listed["messages"]) == ("The first question", 2)
    said = caller.get(f"{path}/{listed['id']}/messages", params={"user": "ann"}).json()["items"]
    assert [(m["query"], m["state"]) for m in said] == [
        ("And then?", "answered"),
        ("The first question", "answered"),
    ]
    assert said[0]["answer"] == second["answer"]


def test_conversation_of_another_user_or_key_is_not_found(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 2})
    first = asked(caller, app.slug, user="ann")
    chat = f"/api/v1/apps/{app.slug}/chat"
    body = {"query": "?", "conversation_id": first["conversation_id"]}
    assert caller.post(chat, json={**body, "user": "bob"}).status_code == 404
    other_key = factories.api_key(tenant_a, scopes=["apps"]).token
    with live_portal.client(other_key) as other:
        assert other.post(chat, json={**body, "user": "ann"}).status_code == 404
        path = f"/api/v1/apps/{app.slug}/conversations/{first['conversation_id']}"
        assert other.get(f"{path}/messages", params={"user": "ann"}).status_code == 404
        assert other.delete(path, params={"user": "ann"}).status_code == 404
    assert counts(tenant_a) == (1, 1, 1)


def test_what_is_said_is_stored_encrypted(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 2})
    asked(caller, app.slug, "a very private question")
    with tenant_scope(tenant_a.context):
        sealed = bytes(AppMessage.objects.get().sealed)
    assert b"private" not in sealed
    assert b"every" not in sealed


def test_another_tenants_app_is_not_found(
    live_portal: LivePortal, caller: httpx.Client, tenant_b: Organisation
) -> None:
    app = make_app(tenant_b, live_portal.fake.model)
    for name in (app.slug, str(app.pk), unique("none")):
        refused = caller.post(f"/api/v1/apps/{name}/chat", json={"query": "x"})
        assert refused.status_code == 404
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["detail"] == "There is no such app."
    message = f"/api/v1/apps/{app.slug}/messages/{uuid7()}"
    assert caller.post(f"{message}/stop", json={}).status_code == 404
    assert caller.post(f"{message}/feedback", json={"rating": "like"}).status_code == 404
    assert counts(tenant_b) == (0, 0, 0)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": "x", "colour": 1}, "body"),
        ({"query": "x", "inputs": {"place": "x", "other": 1}}, "inputs"),
        ({"query": "x", "inputs": {}}, "inputs"),
        ({"query": "x", "inputs": {"place": 5}}, "inputs"),
        ({"query": "x", "user": "a" * 121, "inputs": {"place": "x"}}, "user"),
    ],
)
def test_chat_with_a_wrong_body_names_what_is_wrong(
    live_portal: LivePortal,
    caller: httpx.Client,
    tenant_a: Organisation,
    body: dict[str, Any],
    param: str,
) -> None:
    inputs = [{"name": "place"}]
    app = make_app(tenant_a, live_portal.fake.model, inputs=inputs, prompt="{{query}} {{place}}")
    refused = caller.post(f"/api/v1/apps/{app.slug}/chat", json=body)
    assert (refused.status_code, refused.json()["param"]) == (400, param)
    assert counts(tenant_a) == (0, 0, 0)


def test_call_without_the_right_key_is_refused(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model)
    path = f"/api/v1/apps/{app.slug}/chat"
    with live_portal.client() as nobody:
        refused = nobody.post(path, json={"query": "x"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
    with live_portal.client(factories.api_key(tenant_a).token) as models_only:
        assert models_only.post(path, json={"query": "x"}).status_code == 403
        wrong = models_only.get(path)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert counts(tenant_a) == (0, 0, 0)


def test_app_kept_to_other_keys_is_not_found(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    other = factories.api_key(tenant_a, scopes=["apps"])
    app = make_app(
        tenant_a,
        live_portal.fake.model,
        settings={"allowed_keys": [other.api_key.pk]},
        sampling={"max_tokens": 2},
    )
    path = f"/api/v1/apps/{app.slug}/chat"
    assert caller.post(path, json={"query": "x"}).status_code == 404
    with live_portal.client(other.token) as allowed:
        assert allowed.post(path, json={"query": "x"}).status_code == 200


def test_call_over_the_quota_leaves_nothing_behind(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a, scopes=["apps"])
    set_quota(context=tenant_a.context, api_key_id=key.api_key.pk, requests_minute=1)
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 2})
    with live_portal.client(key.token) as caller:
        asked(caller, app.slug)
        refused = caller.post(
            f"/api/v1/apps/{app.slug}/chat", json={"query": "again", "stream": True}
        )
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["code"] == "rate_limit_exceeded"
    assert counts(tenant_a) == (1, 1, 1)


def test_caller_that_goes_away_ends_the_job(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 2000})
    path = f"/api/v1/apps/{app.slug}/chat"
    with caller.stream("POST", path, json={"query": "x", "stream": True}) as answer:
        for line in answer.iter_lines():
            if line == "event: delta":
                break
    _wait_for(tenant_a, MessageState.STOPPED)
    eventually(lambda: _job_state(tenant_a) == JobState.CANCELLED, within=10, every=0.05)
    with tenant_scope(tenant_a.context):
        assert 0 < Job.objects.get().watermark < 2000


def test_stop_ends_the_answer_that_streams(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 3000})
    below = f"/api/v1/apps/{app.slug}"
    body = {"query": "x", "stream": True}
    names: list[str] = []
    with caller.stream("POST", f"{below}/chat", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: ") and names[-1] == "started":
                message = json.loads(line.removeprefix("data: "))["message_id"]
                stopped = caller.post(f"{below}/messages/{message}/stop", json={})
                assert stopped.status_code == 202
            elif line.startswith("data: ") and names[-1] == "done":
                assert json.loads(line.removeprefix("data: "))["finish_reason"] == "stopped"
    assert names[-1] == "done"
    _wait_for(tenant_a, MessageState.STOPPED)


def test_feedback_is_kept_and_counted_once(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 2})
    body = asked(caller, app.slug)
    path = f"/api/v1/apps/{app.slug}/messages/{body['message_id']}/feedback"
    for rating in ("like", "like", "dislike"):
        rated = caller.post(path, json={"rating": rating, "comment": "so so"})
        assert (rated.status_code, rated.json()["rating"]) == (200, rating)
    assert rated.json()["comment"] == "so so"
    with tenant_scope(tenant_a.context):
        usage = AppUsage.objects.get()
    assert (usage.likes, usage.dislikes) == (0, 1)


def test_delete_conversation_deletes_what_was_said(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    app = make_app(tenant_a, live_portal.fake.model, sampling={"max_tokens": 2})
    body = asked(caller, app.slug)
    path = f"/api/v1/apps/{app.slug}/conversations/{body['conversation_id']}"
    assert caller.delete(path).status_code == 204
    assert counts(tenant_a) == (1, 0, 0)


def test_run_fills_its_inputs_and_answers_by_the_schema(
    live_portal: LivePortal, caller: httpx.Client, tenant_a: Organisation
) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    app = make_app(
        tenant_a,
        live_portal.fake.model,
        mode="run",
        inputs=[{"name": "n", "type": "number"}, {"name": "kind", "type": "choice",
                 "options": ["a", "b"], "required": False}],
        prompt="Rate {{n}} {{kind}}",
        schema=schema,
    )  # fmt: skip
    path = f"/api/v1/apps/{app.slug}"
    answer = caller.post(f"{path}/run", json={"inputs": {"n": 5}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"] == {}
    assert caller.post(f"{path}/chat", json={"query": "x"}).json()["code"] == "wrong_mode"
    wrong = caller.post(f"{path}/run", json={"inputs": {"n": 5, "kind": "c"}})
    assert wrong.status_code == 400
    shown = caller.get(f"{path}/parameters").json()
    assert [one["name"] for one in shown["inputs"]] == ["n", "kind"]


def _wait_for(tenant: Organisation, state: MessageState) -> None:
    def reached() -> bool:
        with tenant_scope(tenant.context):
            return AppMessage.objects.get().state == state

    eventually(reached, within=10, every=0.05)


def _job_state(tenant: Organisation) -> int:
    with tenant_scope(tenant.context):
        return Job.objects.get().state
