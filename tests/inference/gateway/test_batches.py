"""``/v1/batches`` over a real socket, run by real workers: the official client, unchanged."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import openai
import psycopg
import pytest

from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.gateway.test_files import audited, official
from tests.live import FAKE_CONTEXT, LivePortal
from tests.waiting import eventually

ENDPOINT: Final = "/v1/chat/completions"
NOWHERE = "batch_" + "0" * 31 + "1"


@pytest.fixture
def client(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[openai.OpenAI]:
    with official(live_portal, factories.api_key(tenant_a).token) as made:
        yield made


@pytest.fixture
def http(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[httpx.Client]:
    with live_portal.client(factories.api_key(tenant_a).token) as made:
        yield made


def request(custom_id: str, **changes: Any) -> dict[str, Any]:
    body = {
        "model": "fake-chat",
        "messages": [{"role": "user", "content": f"hello {custom_id}"}],
        "max_tokens": 5,
        **changes,
    }
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def upload(client: openai.OpenAI, requests: list[dict[str, Any]]) -> str:
    content = "\n".join(json.dumps(r) for r in requests).encode()
    made = client.files.create(file=("in.jsonl", content), purpose="batch")
    return str(made.id)


def create(client: openai.OpenAI, requests: list[dict[str, Any]], **more: Any) -> Any:
    return client.batches.create(
        input_file_id=upload(client, requests),
        endpoint=ENDPOINT,
        completion_window="24h",
        **more,
    )


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    """The batch once it has ended."""

    def over() -> bool:
        found = client.batches.retrieve(batch_id)
        return found.status in ("completed", "failed", "expired", "cancelled")

    eventually(over, within=90, every=0.2, what=f"{batch_id} ends")
    return client.batches.retrieve(batch_id)


def lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def test_run_batch_by_the_official_client(
    client: openai.OpenAI, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    made = create(client, [request(f"q{n}") for n in range(150)], metadata={"name": "nightly"})
    assert (made.object, made.endpoint, made.completion_window) == ("batch", ENDPOINT, "24h")
    assert made.status in ("validating", "in_progress")
    assert made.expires_at == made.created_at + 24 * 3600
    assert made.metadata == {"name": "nightly"}
    assert made.output_file_id is None
    done = ended(client, made.id)
    assert (done.status, done.error_file_id, done.errors) == ("completed", None, None)
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (150, 150, 0)
    assert done.usage.output_tokens == 150 * 5
    assert done.in_progress_at <= done.finalizing_at <= done.completed_at
    found = {r["custom_id"]: r for r in lines(client, done.output_file_id)}
    assert set(found) == {f"q{n}" for n in range(150)}
    answer = found["q7"]["response"]
    assert (answer["status_code"], found["q7"]["error"]) == (200, None)
    parsed = openai.types.chat.ChatCompletion.model_validate(answer["body"])
    assert len((parsed.choices[0].message.content or "").split()) == 5
    charged = superuser.execute(
        "SELECT count(*), count(DISTINCT job_id), sum(completion_tokens) "
        "FROM tenants_ledgerentry WHERE tenant_id = %s",
        [tenant_a.id],
    ).fetchone()
    assert charged == (150, 150, 750)
    kinds = superuser.execute(
        "SELECT DISTINCT kind, parameters->'metadata'->>'batch' FROM inference_job "
        "WHERE tenant_id = %s",
        [tenant_a.id],
    ).fetchall()
    assert kinds == [("batch", made.id)]
    output = client.files.retrieve(done.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{made.id}_output.jsonl")
    assert audited(superuser, tenant_a, "inference.batches.create") == [
        ("requested", ""),
        ("success", ""),
    ]


def test_run_batch_with_bad_lines_completes_with_an_error_file(client: openai.OpenAI) -> None:
    made = create(
        client,
        [request("good"), request("long", max_tokens=FAKE_CONTEXT), request("hot", temperature=9)],
    )
    done = ended(client, made.id)
    assert done.status == "completed"
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 1, 2)
    assert [r["custom_id"] for r in lines(client, done.output_file_id)] == ["good"]
    failed = {r["custom_id"]: r["response"] for r in lines(client, done.error_file_id)}
    assert failed["long"]["body"]["error"]["code"] == "context_length_exceeded"
    assert failed["hot"]["body"]["error"]["param"] == "temperature"


def test_run_batch_of_an_input_with_faults_fails_and_names_the_lines(
    client: openai.OpenAI,
) -> None:
    made = create(client, [request("a"), request("a"), {**request("b"), "method": "GET"}])
    done = ended(client, made.id)
    assert (done.status, done.output_file_id) == ("failed", None)
    assert done.failed_at is not None
    assert [(e.line, e.code, e.param) for e in done.errors.data] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "invalid_method", "method"),
    ]


def test_cancel_batch_keeps_what_was_answered(
    client: openai.OpenAI, tenant_a: Organisation
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_day=3)
    made = create(client, [request(f"q{n}") for n in range(20)])

    def answered() -> bool:
        counts = client.batches.retrieve(made.id).request_counts
        return counts is not None and counts.completed == 3

    eventually(answered, within=60, every=0.2, what="what there is room for is answered")
    cancelled = client.batches.cancel(made.id)
    assert cancelled.status == "cancelling"
    assert cancelled.cancelling_at is not None
    done = ended(client, made.id)
    assert (done.status, done.request_counts.failed) == ("cancelled", 17)
    assert len(lines(client, done.output_file_id)) == 3
    unsent = lines(client, done.error_file_id)
    assert {(r["error"]["code"], r["response"]) for r in unsent} == {("batch_cancelled", None)}
    assert client.batches.cancel(made.id).status == "cancelled"


def test_cancel_batch_that_has_ended_is_refused(client: openai.OpenAI) -> None:
    made = create(client, [request("a")])
    ended(client, made.id)
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(made.id)
    assert refused.value.code == "batch_not_cancellable"


def test_delete_input_of_a_batch_that_has_not_ended_is_refused(
    client: openai.OpenAI, tenant_a: Organisation
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_day=1)
    made = create(client, [request("a"), request("b")])
    with pytest.raises(openai.ConflictError) as refused:
        client.files.delete(made.input_file_id)
    assert refused.value.code == "file_in_use"
    client.batches.cancel(made.id)
    ended(client, made.id)
    assert client.files.delete(made.input_file_id).deleted


def test_list_batches_pages_from_the_newest(client: openai.OpenAI) -> None:
    made = [create(client, [request("a")]).id for _ in range(3)]
    assert [b.id for b in client.batches.list(limit=2)] == made[::-1]
    first = client.batches.list(limit=2)
    assert (first.has_more, len(first.data)) == (True, 2)


def test_call_another_tenants_batch_answers_as_if_there_were_none(
    live_portal: LivePortal, client: openai.OpenAI, tenant_b: Organisation
) -> None:
    made = create(client, [request("a")])
    with official(live_portal, factories.api_key(tenant_b).token) as other:
        calls: list[Callable[[str], Any]] = [other.batches.retrieve, other.batches.cancel]
        for call in calls:
            with pytest.raises(openai.NotFoundError) as theirs:
                call(made.id)
            with pytest.raises(openai.NotFoundError) as none:
                call(NOWHERE)
            assert theirs.value.message.replace(made.id, "") == none.value.message.replace(
                NOWHERE, ""
            )
        with pytest.raises(openai.NotFoundError) as foreign:
            other.batches.create(
                input_file_id=made.input_file_id, endpoint=ENDPOINT, completion_window="24h"
            )
        assert foreign.value.param == "input_file_id"
        assert list(other.batches.list()) == []
    done = ended(client, made.id)
    assert done.status == "completed"
    with official(live_portal, factories.api_key(tenant_b).token) as other:
        with pytest.raises(openai.NotFoundError):
            other.files.content(done.output_file_id)


WRONG: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "no input": ({"input_file_id": None}, 400, "input_file_id"),
    "unknown input": ({"input_file_id": "file-" + "0" * 32}, 404, "input_file_id"),
    "no id": ({"input_file_id": "../x"}, 404, "input_file_id"),
    "other endpoint": ({"endpoint": "/v1/audio/speech"}, 400, "endpoint"),
    "other window": ({"completion_window": "1h"}, 400, "completion_window"),
    "metadata of numbers": ({"metadata": {"a": 1}}, 400, "metadata"),
    "long metadata": ({"metadata": {"a": "b" * 513}}, 400, "metadata"),
    "much metadata": ({"metadata": {str(n): "" for n in range(17)}}, 400, "metadata"),
    "NUL in metadata": ({"metadata": {"a": "\0"}}, 400, "metadata"),
    "expiry too soon": (
        {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
        400,
        "output_expires_after.seconds",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_create_batch_with_a_wrong_parameter_is_refused(
    http: httpx.Client, client: openai.OpenAI, name: str
) -> None:
    changes, status, param = WRONG[name]
    good = {
        "input_file_id": upload(client, [request("a")]),
        "endpoint": ENDPOINT,
        "completion_window": "24h",
    }
    answer = http.post("/v1/batches", json={**good, **changes})
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]["param"]
    assert str(found).startswith(str(param))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"endpoint": "\xff"}', b"[" * 5000])
def test_create_batch_of_a_body_that_is_none_is_refused(http: httpx.Client, body: bytes) -> None:
    sent = {"content-type": "application/json"}
    assert http.post("/v1/batches", content=body, headers=sent).status_code == 400


def test_create_batch_of_results_is_refused(client: openai.OpenAI) -> None:
    done = ended(client, create(client, [request("a")]).id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(
            input_file_id=done.output_file_id, endpoint=ENDPOINT, completion_window="24h"
        )
    assert refused.value.param == "input_file_id"
