"""The double against the recordings, the client against both: route by route."""

import inspect
import itertools
import json
import ssl
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from knowledge.dify import app_calls
from knowledge.dify.channel import Channel, Endpoint, Upload, open_channel
from knowledge.dify.client import Dify
from knowledge.dify.console_api import GATEWAY_PROVIDER, ConsoleApi, InnerApi
from knowledge.dify.errors import Refused, StillProcessing
from knowledge.dify.knowledge_api import KnowledgeApi
from knowledge.dify.shapes import MetadataValue, RetrievalModel
from tests.knowledge.dify import world as w
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.apps import SSE_TYPE
from tests.knowledge.dify.double.http import JSON_TYPE
from tests.knowledge.dify.double.server import Seen
from tests.knowledge.dify.double.source import KnowledgeSource
from tests.knowledge.dify.recorded import FOLDER, Recorded, recorded, recordings
from tests.knowledge.dify.shapes import differences
from tests.knowledge.dify.states import STATES, with_model
from tests.knowledge.dify.world import recorded_world

OPENAPI = json.loads((FOLDER.parent / "openapi_service.json").read_text())
TLS = ssl.create_default_context()
SOURCE_KEY = "<PORTAL_RETRIEVAL_KEY>"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[DifyDouble, KnowledgeSource]]:
    with KnowledgeSource(SOURCE_KEY) as source, DifyDouble() as double:
        yield double, source


@pytest.fixture
def source(servers: tuple[DifyDouble, KnowledgeSource]) -> KnowledgeSource:
    found = servers[1]
    found.broken = False
    found.received.clear()
    return found


@pytest.fixture
def double(servers: tuple[DifyDouble, KnowledgeSource], source: KnowledgeSource) -> DifyDouble:
    """The double as the recorded Dify was."""
    found = servers[0]
    recorded_world(found, source)
    found.seen.clear()
    return found


# Recorded with a person's cookies, which the client never has; Dify answers the admin key alike.
BY_COOKIE = {name for name, r in recordings().items() if "cookie" in r.request.get("headers", {})}


def replay(double: DifyDouble, source: KnowledgeSource, exchange: Recorded) -> httpx.Response:
    """Sends what was sent when the exchange was recorded."""
    request = exchange.request
    headers = {k: v for k, v in request["headers"].items() if k != "content-type"}
    headers.pop("cookie", None)
    if exchange.name in BY_COOKIE:
        headers |= {"authorization": "Bearer <ADMIN_API_KEY>", "x-workspace-id": w.OWN}
    how: dict[str, Any] = {}
    if "multipart" in request:
        files = request["multipart"]["files"]
        how["files"] = {
            name: (f["filename"], f["content"].encode(), f["content_type"])
            for name, f in files.items()
        } or {"none": (None, b"")}
        how["data"] = request["multipart"]["fields"]
    elif "raw_body" in request:
        how["content"] = request["raw_body"]
    elif "json" in request:
        text = json.dumps(request["json"]).replace(w.SOURCE_URL, source.url)
        how["content"] = text
        headers["content-type"] = JSON_TYPE
    with httpx.Client(trust_env=False, verify=TLS) as client:
        return client.request(
            exchange.method,
            double.url + exchange.path,
            params=exchange.query,
            headers=headers,
            **how,
        )


@pytest.mark.parametrize("name", sorted(recordings()))
def test_replay_of_a_recording_gets_an_answer_of_its_shape(
    double: DifyDouble, source: KnowledgeSource, name: str
) -> None:
    exchange = recorded(name)
    if name in STATES:
        STATES[name](double, source)
    answer = replay(double, source, exchange)
    assert answer.status_code == exchange.status, answer.text
    for header in ("content-type", "x-version", "www-authenticate"):
        assert answer.headers.get(header) == exchange.headers.get(header)
    if exchange.headers.get("content-type") == SSE_TYPE:
        _compare_events(answer.text, exchange.body)
        return
    if not exchange.headers.get("content-type", "").startswith(JSON_TYPE) or answer.text == "":
        assert answer.text == exchange.body
        return
    body = answer.json()
    assert list(differences(body, exchange.body)) == []
    if exchange.status >= 400 and isinstance(body, dict):
        for telling in ("code", "custom", "status"):
            assert body.get(telling) == exchange.body.get(telling)
    if isinstance(exchange.body, dict):
        for told in ("indexing_status", "result", "is_using"):
            assert body.get(told) == exchange.body.get(told)


def _compare_events(text: str, recorded_events: list[Any]) -> None:
    ours: list[Any] = [
        json.loads(part[5:]) if part.startswith("data:") else {"sse_event_line": part}
        for part in text.strip().split("\n\n")
    ]
    assert list(differences(ours, recorded_events)) == []
    assert _stages(ours) == _stages(recorded_events)
    if ours[-1]["event"] == "workflow_finished":
        assert ours[-1]["data"]["status"] == recorded_events[-1]["data"]["status"]


def _stages(events: list[Any]) -> list[str]:
    """The kinds of events, in order; a run of one kind counts once."""
    return [kind for kind, _ in itertools.groupby(e.get("event", "ping") for e in events)]


@pytest.mark.parametrize(
    "name",
    [
        "dify_calls_portal_check",
        "dify_calls_portal_retrieval_hit_testing",
        "dify_calls_portal_retrieval_from_app",
    ],
)
def test_call_of_a_source_is_what_dify_sends(
    double: DifyDouble, source: KnowledgeSource, name: str
) -> None:
    exchanges = {
        "dify_calls_portal_check": "console_external_api_create_201",
        "dify_calls_portal_retrieval_hit_testing": "console_external_hit_testing_200",
        "dify_calls_portal_retrieval_from_app": "app_chat_external_kb_blocking_200",
    }
    with_model(double, source)
    replay(double, source, recorded(exchanges[name]))
    told = json.loads((FOLDER / "from_dify" / f"{name}.json").read_text())
    assert source.received == [call["request"]["body"] for call in told["calls_received_by_portal"]]


class Spy:
    """An API of the client that notes which of its methods are called."""

    def __init__(self, api: Any, called: set[str]) -> None:
        self._api, self._called = api, called

    def __getattr__(self, name: str) -> Any:
        owner = self._api if isinstance(self._api, ModuleType) else type(self._api)
        self._called.add(f"{owner.__name__}.{name}")
        return getattr(self._api, name)


def every_call(dify: Dify, channel: Channel, source: KnowledgeSource) -> set[str]:
    """Calls each method of the client, once at least; returns which were called."""
    called: set[str] = set()
    _every_knowledge_call(Spy(dify.knowledge, called))
    _every_console_call(Spy(dify.console, called), source)
    inner = Spy(InnerApi(channel, "<INNER_API_KEY>"), called)
    inner.create_workspace(name="Tenant C", owner_email="admin@example.com")
    _every_call_of_apps(Spy(app_calls, called), dify)
    return called


def _every_knowledge_call(api: Any) -> None:
    keyword = RetrievalModel("keyword_search", False, 3, False)
    assert [d.id for d in api.datasets()] == [d.id for d in api.list_datasets().data]
    made = api.create_dataset("New", description="d", retrieval_model=keyword)
    api.update_dataset(made.id, name="Renamed", description="e", retrieval_model=keyword)
    text = api.create_document_by_text(
        made.id, name="a.txt", text="Vacation: two days.", indexing_technique="economy"
    )
    _index(api, made.id, text.batch)
    upload = Upload("b.md", b"# Security", "text/markdown")
    file = api.create_document_by_file(made.id, upload, indexing_technique="economy")
    _index(api, made.id, file.batch)
    api.update_document_by_text(made.id, text.document.id, name="a.txt", text="Vacation: three.")
    api.update_document_by_file(made.id, file.document.id, upload)
    while any(d.indexing_status != "completed" for d in api.documents(made.id)):
        pass
    assert api.list_documents(made.id, keyword="A.").data[0].id == text.document.id
    assert api.get_document(made.id, text.document.id).segment_count == 1
    assert api.count_segments(made.id, text.document.id) == 1
    assert len(list(api.segments(made.id, text.document.id))) == 1
    api.set_document_status(made.id, [text.document.id], "disable")
    with pytest.raises(StillProcessing):
        api.set_document_status(made.id, [text.document.id], "enable")
    api.set_document_status(made.id, [text.document.id], "enable")
    [hit] = api.retrieve(made.id, "Vacation", keyword)
    assert hit.segment.document.name == "a.txt"
    field = api.create_metadata(made.id, "portal_id", "string")
    api.set_metadata(made.id, {text.document.id: [MetadataValue(field.id, "portal_id", "doc-42")]})
    api.rename_metadata(made.id, field.id, "source_id")
    assert [f.name for f in api.metadata(made.id).doc_metadata] == ["source_id"]
    tag = api.create_tag("tenant:b")
    api.bind_tags(made.id, [tag.id])
    assert api.dataset_tags(made.id) == [tag]
    api.unbind_tags(made.id, [tag.id])
    assert tag in api.tags()
    assert api.embedding_models() == []
    api.delete_metadata(made.id, field.id)
    api.delete_document(made.id, file.document.id)
    api.delete_dataset(api.get_dataset(made.id).id)


def _index(api: Any, dataset_id: str, batch: str) -> None:
    while not api.indexing_status(dataset_id, batch)[0].indexed:
        pass


def _every_console_call(api: Any, source: KnowledgeSource) -> None:
    assert api.system_features().license.status == "none"
    assert w.OWN in [found.id for found in api.workspaces().data]
    assert api.create_dataset_key() in api.dataset_keys()
    assert api.in_use(w.FLOW)
    assert [app.id for app in api.related_apps(w.FLOW)] == [w.CHATFLOW]
    _every_app_call(api)
    assert api.model_providers() == [GATEWAY_PROVIDER]
    credentials = recorded("console_model_credential_create_201").sent["credentials"]
    api.create_model_credential(model="private-llm", name="gateway", credentials=credentials)
    api.set_default_model("private-llm")
    assert api.models()[0].models[0].model == "private-llm"
    assert api.model_credential("private-llm").current_credential_name == "gateway"
    with pytest.raises(Refused):
        api.create_model_credential(model="private-llm", name="again", credentials=credentials)
    made = api.create_external_api(name="Portal", endpoint=source.url, key=source.key)
    assert made in api.external_apis().data
    dataset = api.create_external_dataset(
        api_id=made.id, knowledge_id="kb-1", name="Outside", score_threshold=0.5
    )
    assert api.external_api_in_use(made.id) == 1
    assert api.external_hits(dataset.id, "vacation", score_threshold=0.3)[0].score == 0.92


def _every_app_call(api: Any) -> None:
    dsl = recorded("console_app_import_workflow_200").sent["yaml_content"]
    made = api.import_app(dsl)
    assert made.completed
    assert api.import_app(dsl, app_id=made.app_id).app_id == made.app_id
    pending = api.import_app(recorded("console_app_import_pending_202").sent["yaml_content"])
    assert (pending.status, pending.completed) == ("pending", False)
    assert api.confirm_import(pending.id).completed
    assert api.confirm_import(pending.id).status == "failed"
    assert api.import_app("app: [unclosed").error
    assert api.draft(made.app_id).graph["nodes"][1]["id"] == "llm"
    assert api.live_hash(made.app_id) == ""
    assert api.publish(made.app_id, name="v1", comment="from the portal") > 0
    assert api.live_hash(made.app_id) == api.draft(made.app_id).hash
    assert api.list_apps(name="HR").data[0].id == w.CHAT
    assert "HR assistant" in api.export_app(w.CHAT)
    api.set_model_config(w.CHAT, recorded("console_app_model_config_update").sent)
    api.enable_app_api(w.CHAT, enabled=False)
    assert not api.get_app(w.CHAT).enable_api
    key = api.create_app_key(made.app_id)
    assert api.app_keys(made.app_id) == [key]
    api.delete_app_key(made.app_id, key.id)
    api.delete_app(made.app_id)


def _every_call_of_apps(calls: Any, dify: Dify) -> None:
    chat, flow = dify.app("<CHAT_APP_API_KEY>"), dify.app("<WF_APP_API_KEY>")
    dify.console.enable_app_api(w.CHAT, enabled=True)
    user = "portal-user-2"
    assert chat.do(calls.info()).mode == "chat"
    assert chat.do(calls.parameters()).retriever_resource.enabled
    answer = chat.do(calls.chat(query="Vacation?", user=user))
    again = chat.do(calls.chat(query="More?", user=user, conversation_id=answer.conversation_id))
    assert again.conversation_id == answer.conversation_id
    [found] = chat.do(calls.conversations(user=user)).data
    chat.do(calls.rename_conversation(found.id, name="Vacation question", user=user))
    told = chat.do(calls.messages(found.id, user=user)).data
    assert [message.query for message in told] == ["More?", "Vacation?"]
    chat.do(calls.give_feedback(again.message_id, rating="like", user=user, content="useful"))
    chat.do(calls.stop_chat(again.task_id, user=user))
    chat.do(calls.delete_conversation(found.id, user=user))
    assert chat.do(calls.conversations(user=user)).data == []
    ran = flow.do(calls.run(inputs={"text": "Dify lab"}, user=user))
    assert ran.data.succeeded
    assert ran.data.outputs == {"summary": "Vacation is twenty five days. "}
    flow.do(calls.stop_run(ran.task_id, user=user))


def _calls_of(module: ModuleType) -> set[str]:
    """The functions of a module that make calls."""
    found = inspect.getmembers(module, inspect.isfunction)
    return {
        f"{module.__name__}.{name}"
        for name, function in found
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def _public(api: type) -> set[str]:
    return {f"{api.__name__}.{name}" for name in vars(api) if not name.startswith("_")}


@pytest.fixture
def calls(double: DifyDouble, source: KnowledgeSource) -> list[Seen]:
    """What arrives when every method of the client is called, each of them once at least."""
    endpoint = Endpoint(double.url, w.OWN, "<ADMIN_API_KEY>", "<DATASET_API_KEY>")
    with open_channel(double.url) as channel:
        called = every_call(Dify(endpoint, channel), channel, source)
        assert channel.version == "1.16.0"
    apis = _public(KnowledgeApi) | _public(ConsoleApi) | _public(InnerApi)
    assert called == apis | _calls_of(app_calls)
    return double.seen


def test_every_call_of_the_client_was_recorded_with_this_shape(calls: list[Seen]) -> None:
    """Two calls of the client were never recorded; the OpenAPI has them."""
    unrecorded = {
        ("DELETE", "/v1/datasets/{id}/metadata/{id}"),
        ("POST", "/v1/workflows/tasks/{id}/stop"),
    }
    for seen in calls:
        same = [r for r in recordings().values() if r.route == seen.route]
        if seen.route in unrecorded:
            continue
        with_status = [r for r in same if r.status == seen.status]
        assert with_status, f"{seen.route} was never recorded with {seen.status}"
        assert _authentication(seen) in {_authentication_of(r) for r in with_status}
        if seen.request.raw:
            assert min((list(_sent_otherwise(seen, r)) for r in with_status), key=len) == []
        if with_status[0].status not in (204, 404) and seen.answer is not None:
            told = (list(differences(seen.answer.body, r.body)) for r in with_status)
            assert min(told, key=len) == []


_CREDENTIALS = {"authorization", "x-workspace-id", "x-inner-api-key"}


def _authentication(seen: Seen) -> frozenset[str]:
    return frozenset(seen.request.headers.keys() & _CREDENTIALS)


def _authentication_of(exchange: Recorded) -> frozenset[str]:
    return frozenset(exchange.request["headers"].keys() & _CREDENTIALS)


def _sent_otherwise(seen: Seen, exchange: Recorded) -> Iterator[str]:
    """How a body differs from the recorded one; keys that Dify documents may be left out."""
    if "multipart" in exchange.request:
        fields, file = seen.request.multipart()
        wanted = exchange.request["multipart"]
        if (set(fields), file is None) != (set(wanted["fields"]), not wanted["files"]):
            yield f"fields {set(fields)}"
        return
    sent, theirs = seen.request.json, exchange.sent or {}
    for name in sent.keys() - theirs.keys() - _documented(seen):
        yield f"{name} was never sent"
    for name in sent.keys() & theirs.keys():
        yield from differences(sent[name], theirs[name], f"$.{name}")


def _operation(seen: Seen) -> dict[str, Any] | None:
    """The operation of the OpenAPI that a call is, None where the OpenAPI covers it not."""
    parts = seen.request.path.removeprefix("/v1").split("/")
    for path, operations in OPENAPI["paths"].items():
        names = path.split("/")
        fits = len(names) == len(parts) and all(
            name == part or name.startswith("{") for name, part in zip(names, parts, strict=True)
        )
        if fits and seen.request.method.lower() in operations:
            found: dict[str, Any] = operations[seen.request.method.lower()]
            return found
    return None


def _request_schema(seen: Seen) -> dict[str, Any]:
    content = ((_operation(seen) or {}).get("requestBody") or {}).get("content", {})
    schema: dict[str, Any] = content.get(JSON_TYPE, {}).get("schema", {})
    return schema


def _documented(seen: Seen) -> set[str]:
    return set(_request_schema(seen).get("properties", {}))


def test_every_call_of_the_service_api_is_one_of_the_openapi(calls: list[Seen]) -> None:
    service = [seen for seen in calls if seen.request.path.startswith("/v1/")]
    assert len(service) > 25
    for seen in service:
        operation = _operation(seen)
        assert operation is not None, seen.route
        assert str(seen.status) in operation["responses"], (seen.route, seen.status)
        schema = _request_schema(seen)
        if schema:
            whole = {**schema, "components": OPENAPI["components"]}
            jsonschema.validate(seen.request.json, whole)
