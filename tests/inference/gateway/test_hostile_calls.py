"""Whatever is sent to the newer APIs is answered in their shape, recorded, and never a 5xx."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from inference.gateway.app import Straight
from inference.models import Deployment
from inference.services import set_deployment_enabled
from tests import factories
from tests.factories import Organisation
from tests.inference.gateway.apis import APIS, MESSAGES, NEW, Api
from tests.live import Deployed, LivePortal, Programs, deploy

COUNT = "/v1/messages/count_tokens"
PATHS = pytest.mark.parametrize("path", [*(api.path for api in NEW.values()), COUNT])


@pytest.fixture(scope="module")
def caller(live_portal: LivePortal) -> Iterator[httpx.Client]:
    """An HTTP client with a key of a tenant of this module's own."""
    key = factories.api_key(factories.organisation("hostile"))
    with live_portal.client(key.token) as client:
        yield client


def post(client: httpx.Client, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers={"content-type": "application/json"})


def recorded(superuser: psycopg.Connection, response: httpx.Response) -> list[tuple[str, str]]:
    """Outcome and reason of the events of a request."""
    return superuser.execute(
        "SELECT outcome, reason FROM audit_event WHERE request_id = %s",
        [response.headers["x-request-id"]],
    ).fetchall()


def code(response: httpx.Response) -> str:
    """The code of a refusal, whose whole shape is looked at."""
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    error = body["error"]
    assert error["message"].isprintable()
    if "/v1/messages" in str(response.request.url):
        assert set(body) == {"type", "error", "request_id"}
        assert body["type"] == "error"
        return str(error["details"]["error_code"])
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


BODIES: dict[str, bytes] = {
    "empty": b"",
    "not-json": b"{'model': 1}",
    "truncated": b'{"model": "fake-chat", "messages": [',
    "not-utf8": b'{"model": "\xff\xfe"}',
    "raw-nul": b'{"model": "fake\x00chat"}',
    "array": b"[]",
    "null": b"null",
    "deep": b'{"tools": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    "lone-surrogate": b'{"model": "fake-chat", "user": "\\udfff"}',
    "nothing": b"{}",
    "model-is-a-number": b'{"model": 7}',
    "huge-number": b'{"max_tokens": ' + b"9" * 4000 + b"}",
    "many-empty-items": b'{"model": "m", "input": [' + b"{}," * 90_000 + b"{}]}",
}


@PATHS
@pytest.mark.parametrize("name", BODIES)
def test_refuse_a_bad_body_in_the_apis_shape_and_record_it(
    caller: httpx.Client, superuser: psycopg.Connection, path: str, name: str
) -> None:
    response = post(caller, path, BODIES[name])
    assert response.status_code == 400, response.text
    assert recorded(superuser, response) == [("failure", code(response))]


@PATHS
def test_refuse_strangers_large_bodies_and_other_types_in_the_apis_shape(
    live_portal: LivePortal, caller: httpx.Client, superuser: psycopg.Connection, path: str
) -> None:
    large = post(caller, path, b" " * (4 * 1024 * 1024 + 1))
    plain = caller.post(path, content=b"{}", headers={"content-type": "text/plain"})
    with live_portal.client() as nobody:
        stranger = post(nobody, path, {})
    for response, status, outcome, wanted in (
        (large, 413, "failure", "body_too_large"),
        (plain, 415, "failure", "unsupported_media_type"),
        (stranger, 401, "denied", "invalid_api_key"),
    ):
        assert (response.status_code, code(response)) == (status, wanted)
        assert recorded(superuser, response) == [(outcome, wanted)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=10,
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "input_text", "output_text"])}, optional={"text": TEXT}
    ),
    max_size=2,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant"])},
        optional={"content": TEXT | PARTS | JSON},
    ),
    max_size=3,
)
FIELDS = st.fixed_dictionaries(
    {"model": st.just("fake-chat")},
    optional={
        "prompt": TEXT | st.lists(TEXT, max_size=2),
        "input": TEXT | TURNS,
        "messages": TURNS,
        "system": TEXT | PARTS,
        "instructions": TEXT,
        "metadata": st.dictionaries(TEXT, TEXT) | st.fixed_dictionaries({"user_id": TEXT}),
        "stop": TEXT | st.lists(TEXT),
        "stop_sequences": st.lists(TEXT),
        "temperature": st.floats(0, 1) | JSON,
        "user": TEXT,
        "stream": st.booleans(),
        "tools": JSON,
    },
)
FITTING: dict[str, tuple[str, ...]] = {
    "/v1/completions": ("model", "prompt", "stop", "temperature", "user", "stream"),
    "/v1/responses": (
        "model", "input", "instructions", "metadata", "temperature", "user", "stream",
    ),
    "/v1/messages": (
        "model", "messages", "system", "metadata", "stop_sequences", "temperature", "stream",
    ),
    COUNT: ("model", "messages", "system"),
}  # fmt: skip


@PATHS
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fields=FIELDS, tokens=st.integers(-1, 4), fitting=st.booleans())
def test_send_anything_is_never_answered_with_a_fault_of_ours(
    caller: httpx.Client, path: str, fields: dict[str, Any], tokens: int, fitting: bool
) -> None:
    if fitting:
        fields = {name: value for name, value in fields.items() if name in FITTING[path]}
    limit = "max_output_tokens" if path.endswith("responses") else "max_tokens"
    if path != COUNT:
        fields[limit] = tokens
    response = post(caller, path, fields)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert code(response)


# -- a failure in the middle of an answer ----------------------------------------------------


@pytest.fixture(scope="module")
def failing(live_portal: LivePortal) -> Iterator[Deployed]:
    """A deployment that fails whoever says "fail", after three tokens."""
    name = factories.unique("failing")
    options = {"token_ms": 5, "slots": 8, "fail_on": "fail", "fail_after": 3}
    deployed = deploy(live_portal.servers, name, options=options)
    programs = Programs(live_portal.servers)
    programs.worker(deployed)
    programs.wait_served(live_portal.web, deployed)
    yield deployed
    programs.stop()
    deployment = Deployment.objects.get(name=name)
    set_deployment_enabled(context=factories.TESTS, deployment_id=deployment.id, enabled=False)


@pytest.mark.parametrize("name", APIS)
def test_fail_in_the_middle_of_a_stream_ends_it_as_each_api_does(
    live_portal: LivePortal,
    failing: Deployed,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
    name: str,
) -> None:
    api = APIS[name]
    asked = {**api.body(20), "model": failing.model, **_failing(api)}
    with live_portal.client(factories.api_key(tenant_a).token) as client:
        streamed = client.post(api.path, json={**asked, "stream": True})
        whole = client.post(api.path, json=asked)
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line[:5] == "data:"]
    assert streamed.status_code == 200
    last = events[-1]
    if api is MESSAGES:
        assert "event: error" in streamed.text.splitlines()
        assert last["error"]["details"]["error_code"] == "request_refused"
    elif name == "responses":
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        assert events[-2]["code"] == "request_refused"
        assert len(last["response"]["output"][0]["content"][0]["text"].split()) == 3
    else:
        assert last["error"]["code"] == "request_refused"
    assert "[DONE]" not in streamed.text
    # Nobody has seen anything of the whole answer, so it is refused as a whole.
    assert (whole.status_code, code(whole)) == (400, "request_refused")
    rows = superuser.execute(
        "SELECT completion_tokens FROM tenants_ledgerentry WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert rows == [(3,)]


def _failing(api: Api) -> dict[str, Any]:
    turns = [{"role": "user", "content": "fail"}]
    (name,) = set(api.body(1)) & {"messages", "prompt", "input"}
    return {name: turns if name == "messages" else "fail"}


@pytest.mark.parametrize("name", APIS)
def test_meet_a_fault_of_ours_is_told_in_the_apis_shape(name: str) -> None:
    api = APIS[name]

    class Faulty:
        async def __call__(self, *_: Any) -> None:
            raise RuntimeError("a fault")

    app = Straight(Starlette(), [Route(api.path, Faulty(), methods=None)])
    client = TestClient(app, raise_server_exceptions=False)
    response = client.post(api.path, json={})
    body = response.json()
    assert response.status_code == 500
    assert body["request_id"] == response.headers["x-request-id"]
    kind = {"messages": "api_error"}.get(name, "server_error")
    assert body["error"]["type"] == kind
    assert (response.headers.get("request-id") is not None) == (api is MESSAGES)
