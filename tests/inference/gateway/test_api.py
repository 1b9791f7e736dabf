"""``/v1`` as its callers meet it: the official client, bad input, limits, over a real socket."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import psycopg
import pytest

from tenants.services import create_api_key, revoke_api_key, set_quota, suspend_tenant
from tests import factories
from tests.factories import Organisation
from tests.live import FAKE_CONTEXT, LivePortal
from tests.waiting import eventually

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def caller(live_portal: LivePortal) -> Iterator[httpx.Client]:
    """An HTTP client with a key of a tenant of this module's own."""
    key = factories.api_key(factories.organisation("api"))
    with live_portal.client(key.token) as client:
        yield client


def official(portal: LivePortal, token: str, **options: Any) -> openai.OpenAI:
    """The official client, as its users make it."""
    return openai.OpenAI(base_url=f"{portal.base_url}/v1", api_key=token, max_retries=0, **options)


@pytest.fixture
def client(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[openai.OpenAI]:
    with official(live_portal, factories.api_key(tenant_a).token) as made:
        yield made


def post(client: httpx.Client, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **headers}
    return client.post("/v1/chat/completions", content=content, headers=sent)


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "fake-chat", "messages": HELLO, "max_tokens": 5, **changes}


def audit(superuser: psycopg.Connection, response: httpx.Response) -> list[tuple[str, str]]:
    """Outcome and reason of the events of a request."""
    rows = superuser.execute(
        "SELECT outcome, reason FROM audit_event WHERE request_id = %s ORDER BY recorded_at, id",
        [response.headers["x-request-id"]],
    ).fetchall()
    return [(outcome, reason) for outcome, reason in rows]


def jobs(superuser: psycopg.Connection, response: httpx.Response) -> int:
    (count,) = superuser.execute(
        "SELECT count(*) FROM inference_job WHERE request_id = %s",
        [response.headers["x-request-id"]],
    ).fetchone() or (0,)
    return int(count)


# -- the official client, unchanged ----------------------------------------------------------


def test_answers_the_official_client(
    client: openai.OpenAI, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    answer = client.chat.completions.create(**chat(max_tokens=7))
    assert answer.model == "fake-chat"
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert len(choice.message.content.split()) == 7
    assert (choice.finish_reason, choice.message.role) == ("length", "assistant")
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
    charged = superuser.execute(
        "SELECT prompt_tokens, completion_tokens, measure FROM tenants_ledgerentry "
        "WHERE tenant_id = %s",
        [tenant_a.id],
    ).fetchall()
    assert charged == [(answer.usage.prompt_tokens, 7, "measured")]


def test_streams_to_the_official_client_with_usage_at_the_end(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        **chat(max_tokens=9), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert len(text.split()) == 9
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 9
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_streams_the_text_that_a_whole_answer_has(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**chat(max_tokens=30))
    stream = client.chat.completions.create(**chat(max_tokens=30), stream=True)
    streamed = "".join(c.choices[0].delta.content or "" for c in stream)
    assert streamed == whole.choices[0].message.content


def test_stops_at_a_stop_sequence(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**chat(max_tokens=30)).choices[0].message.content
    word = whole.split()[4]
    answer = client.chat.completions.create(**chat(max_tokens=30, stop=[word]))
    assert answer.choices[0].finish_reason == "stop"
    assert word not in answer.choices[0].message.content


def test_lists_models_to_the_official_client(client: openai.OpenAI) -> None:
    assert "fake-chat" in {model.id for model in client.models.list()}
    found = client.models.retrieve("fake-chat")
    assert (found.object, found.owned_by) == ("model", "freehold")


def test_raises_the_clients_own_exceptions(
    live_portal: LivePortal, client: openai.OpenAI, tenant_b: Organisation
) -> None:
    with official(live_portal, "fh-wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**chat(model="gpt-none"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**chat(temperature=7))
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(**chat(max_tokens=FAKE_CONTEXT))
    assert long.value.code == "context_length_exceeded"
    key = factories.api_key(tenant_b)
    with official(live_portal, key.token) as suspended:
        suspended.models.list()
        suspend_tenant(context=factories.TESTS, tenant_id=tenant_b.id, reason="unpaid")
        with pytest.raises(openai.PermissionDeniedError):
            suspended.models.list()
    spent = factories.organisation("spent")
    set_quota(context=factories.TESTS, tenant_id=spent.id, tokens_day=3)
    with official(live_portal, factories.api_key(spent).token) as poor:
        with pytest.raises(openai.RateLimitError) as full:
            poor.chat.completions.create(**chat())
    assert full.value.code == "insufficient_quota"
    assert full.value.type == "insufficient_quota"
    assert (full.value.request_id or "").startswith("req-")


def test_refuses_a_revoked_key_at_the_next_request(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    with live_portal.client(key.token) as client:
        assert post(client, chat()).status_code == 200
        revoke_api_key(context=tenant_a.context, api_key_id=key.api_key.id, reason="lost")
        assert post(client, chat()).status_code == 401


def test_hides_a_model_that_the_key_may_not_use(
    live_portal: LivePortal, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    key = create_api_key(
        context=tenant_a.context, name="n", scopes=["inference"], allowed_models=["another"]
    )
    with live_portal.client(key.token) as client:
        assert client.get("/v1/models").json()["data"] == []
        for response in (client.get("/v1/models/fake-chat"), post(client, chat())):
            assert (response.status_code, code(response)) == (404, "model_not_found")
            assert audit(superuser, response) == [("denied", "model_not_found")]


# -- bad input -------------------------------------------------------------------------------


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


BAD_BODIES: dict[str, tuple[Any, int, str | None]] = {
    "empty": (b"", 400, None),
    "not-json": (b"{'model': 1}", 400, None),
    "truncated": (b'{"model": "fake-chat", "messages": [', 400, None),
    "not-utf8": (b'{"model": "\xff\xfe"}', 400, None),
    "raw-nul": (b'{"model": "fake\x00chat"}', 400, None),
    "array": (b"[]", 400, None),
    "number": (b"7", 400, None),
    "null": (b"null", 400, None),
    "too-deep": (b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, None),
    "deep-extra": (b'{"x": ' + b'{"a":' * 90_000 + b"1" + b"}" * 90_001, 400, None),
    "no-model": ({"messages": HELLO}, 400, "missing_required_parameter"),
    "no-messages": ({"model": "fake-chat"}, 400, "missing_required_parameter"),
    "empty-messages": (chat(messages=[]), 400, "empty_array"),
    "nul-in-text": (chat(messages=[{"role": "user", "content": "a\0b"}]), 400, "invalid_unicode"),
    "nul-in-user": (chat(user="a\0b"), 400, "invalid_unicode"),
    "nul-in-stop": (chat(stop=["a\0"]), 400, "invalid_unicode"),
    "nul-in-model": (chat(model="a\0b"), 400, "invalid_unicode"),
    "lone-surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, None),
    "lone-surrogate-user": (b'{"model": "fake-chat", "user": "\\udfff"}', 400, None),
    "model-is-a-number": (chat(model=7), 400, None),
    "messages-is-text": (chat(messages="hi"), 400, None),
    "message-is-text": (chat(messages=["hi"]), 400, None),
    "content-is-a-number": (chat(messages=[{"role": "user", "content": 7}]), 400, None),
    "unknown-role": (chat(messages=[{"role": "root", "content": "x"}]), 400, None),
    "stream-is-text": (chat(stream="yes"), 400, None),
    "temperature-is-text": (chat(temperature="hot"), 400, None),
    "temperature-nan": (b'{"model":"fake-chat","messages":[],"temperature":NaN}', 400, None),
    "negative-max-tokens": (chat(max_tokens=-1), 400, "integer_below_min_value"),
    "zero-max-tokens": (chat(max_tokens=0), 400, "integer_below_min_value"),
    "huge-max-tokens": (chat(max_tokens=10**30), 400, None),
    "large-max-tokens": (chat(max_tokens=2**31 - 1), 400, "context_length_exceeded"),
    "fractional-max-tokens": (chat(max_tokens=1.5), 400, None),
    "max-tokens-beyond-context": (chat(max_tokens=FAKE_CONTEXT), 400, "context_length_exceeded"),
    "prompt-beyond-context": (
        chat(messages=[{"role": "user", "content": "word " * FAKE_CONTEXT}]),
        400,
        "context_length_exceeded",
    ),
    "huge-seed": (chat(seed=2**64), 400, None),
    "tools": (chat(tools=[{"type": "custom"}]), 400, "unsupported_parameter"),
    "image": (
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        400,
        "unsupported_parameter",
    ),
    "unknown-model": (chat(model="nothing"), 404, "model_not_found"),
    "path-as-model": (chat(model="../../etc/passwd"), 404, "model_not_found"),
    "sql-as-model": (chat(model="'; DROP TABLE inference_job; --"), 404, "model_not_found"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BODIES)
def test_refuses_a_bad_body_in_the_apis_shape_and_records_it(
    caller: httpx.Client, superuser: psycopg.Connection, name: str
) -> None:
    body, status, wanted = BAD_BODIES[name]
    response = post(caller, body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert wanted is None or error["code"] == wanted
    assert response.json()["request_id"] == response.headers["x-request-id"]
    outcome = "denied" if status == 404 else "failure"
    assert audit(superuser, response) == [(outcome, error["code"])]
    assert jobs(superuser, response) == 0


def test_refuses_a_body_that_is_too_large(
    caller: httpx.Client, superuser: psycopg.Connection
) -> None:
    response = post(caller, b" " * (4 * 1024 * 1024 + 1))
    assert (response.status_code, code(response)) == (413, "body_too_large")
    assert audit(superuser, response) == [("failure", "body_too_large")]


def test_refuses_a_body_that_is_too_large_and_does_not_say_so(
    caller: httpx.Client, superuser: psycopg.Connection
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(80):
            yield b" " * 65_536

    response = caller.post(
        "/v1/chat/completions", content=pieces(), headers={"content-type": "application/json"}
    )
    assert (response.status_code, code(response)) == (413, "body_too_large")
    assert audit(superuser, response) == [("failure", "body_too_large")]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "json", ""])
def test_refuses_a_body_that_is_not_declared_as_json(caller: httpx.Client, kind: str) -> None:
    response = post(caller, chat(), **{"content-type": kind})
    assert (response.status_code, code(response)) == (415, "unsupported_media_type")


HOSTILE_HEADERS: dict[str, dict[str, str]] = {
    "long-correlation-id": {"x-request-id": "a" * 300},
    "odd-correlation-id": {"x-request-id": "a\tb; DROP TABLE x'\"<script>"},
    "forwarded-port": {"x-forwarded-port": "99999999999"},
    "forwarded-for": {"x-forwarded-for": "garbage, ::::, 999.1.1.1, %00"},
    "long-forwarded-for": {"x-forwarded-for": "1.2.3.4," * 900},
    "forwarded-proto": {"x-forwarded-proto": "gopher", "x-forwarded-host": "\\evil\\"},
    "cookie": {"cookie": 'sessionid="; a=b; ;;;=; [=]'},
    "content-type": {"content-type": "application/json; charset=utf-99; =;"},
    "accept": {"accept": "text/x-nothing"},
    "host": {"host": "evil.example:99999999999"},
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
@pytest.mark.parametrize("bad", [False, True], ids=["good-body", "bad-body"])
def test_serves_or_refuses_whatever_the_headers_say(
    caller: httpx.Client, superuser: psycopg.Connection, name: str, bad: bool
) -> None:
    response = post(caller, chat(max_tokens=-1) if bad else chat(), **HOSTILE_HEADERS[name])
    assert response.status_code == (400 if bad else 200), response.text
    eventually(lambda: len(audit(superuser, response)) == (1 if bad else 2))
    kept = superuser.execute(
        "SELECT client_request_id, host(address) FROM audit_event WHERE request_id = %s",
        [response.headers["x-request-id"]],
    ).fetchall()
    asked, address = next(row for row in kept if row[1] is not None)
    assert asked is None or (asked.isprintable() and len(asked) <= 128)
    assert address == "127.0.0.1"


BAD_CREDENTIALS = [
    None, "", "Bearer", "Basic YTpi", "Bearer fh-", "Bearer " + "a" * 4000,
    "Bearer fh_zzzzzzzzzzzzzzzz_yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", "Bearer a b", "Token x",
    "Bearer {a,b}", "Bearer %00",
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_CREDENTIALS)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/embeddings"])
def test_refuses_a_stranger_and_records_the_attempt(
    live_portal: LivePortal, superuser: psycopg.Connection, header: str | None, path: str
) -> None:
    method = "POST" if path.endswith("completions") else "GET"
    headers = {} if header is None else {"authorization": header}
    with live_portal.client() as client:
        body = chat() if method == "POST" else None
        response = client.request(method, path, headers=headers, json=body)
    assert (response.status_code, code(response)) == (401, "invalid_api_key")
    assert audit(superuser, response) == [("denied", "invalid_api_key")]


@pytest.mark.parametrize(
    ("method", "path", "status", "wanted"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/v1/models/fake-chat", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/", 404, "unknown_url"),
        ("GET", "/v1/completions", 405, "method_not_allowed"),
        ("GET", "/v1/responses", 405, "method_not_allowed"),
        ("GET", "/v1/responses/resp_1", 404, "unknown_url"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions/", 404, "unknown_url"),
        ("GET", "/v1/%00%ff/../x", 404, "unknown_url"),
        ("GET", "/v1/models/nothing", 404, "model_not_found"),
        ("GET", "/v1/models/%00", 404, "model_not_found"),
    ],
)
def test_refuses_unknown_routes_and_methods_in_the_apis_shape(
    caller: httpx.Client,
    superuser: psycopg.Connection,
    method: str,
    path: str,
    status: int,
    wanted: str,
) -> None:
    response = caller.request(method, path)
    assert (response.status_code, code(response)) == (status, wanted)
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert [reason for _, reason in audit(superuser, response)] == [wanted]


# -- limits ----------------------------------------------------------------------------------


def test_tells_what_is_left_with_every_answer(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_day=10, tokens_day=10_000)
    with live_portal.client(factories.api_key(tenant_a).token) as client:
        whole = post(client, chat())
        with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as streamed:
            streamed.read()
    for response, left in ((whole, "9"), (streamed, "8")):
        assert response.status_code == 200
        assert response.headers["x-ratelimit-limit-requests"] == "10"
        assert response.headers["x-ratelimit-remaining-requests"] == left
        assert response.headers["x-ratelimit-limit-tokens"] == "10000"
        assert int(response.headers["x-ratelimit-remaining-tokens"]) < 10_000
        assert response.headers["x-ratelimit-reset-requests"]


def test_answers_429_with_when_to_come_back(
    live_portal: LivePortal, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_minute=0)
    with live_portal.client(factories.api_key(tenant_a).token) as client:
        response = post(client, chat())
    assert (response.status_code, code(response)) == (429, "rate_limit_exceeded")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in response.headers
    assert audit(superuser, response) == [("denied", "rate_limit_exceeded")]
    assert jobs(superuser, response) == 0


def test_tells_clients_not_to_retry_a_spent_budget(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, cost_total=1)
    with live_portal.client(factories.api_key(tenant_a).token) as client:
        response = post(client, chat(stream=True))
    assert (response.status_code, code(response)) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers


def test_records_the_caller_of_a_good_call(
    live_portal: LivePortal, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    key = factories.api_key(tenant_a)
    before = datetime.now(UTC) - timedelta(seconds=1)
    with live_portal.client(key.token) as client:
        response = post(client, chat(user="till-7"), **{"x-request-id": "order 66"})
    rows = superuser.execute(
        "SELECT e.outcome, e.tenant_id, e.api_key_id, e.client_request_id, e.recorded_at > %s, "
        "b.detail::text FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.request_id = %s ORDER BY e.recorded_at, e.id",
        [before, response.headers["x-request-id"]],
    ).fetchall()
    assert [row[0] for row in rows] == ["requested", "success"]
    assert {row[1:3] for row in rows} == {(tenant_a.id, key.api_key.id)}
    assert rows[0][3] == "order 66"
    assert all(row[4] for row in rows)
    assert not any("hello" in row[5] or key.token in row[5] for row in rows)
