"""Embeddings and rankings that may wait: as lines of a batch, and as jobs, by a real worker."""

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx
import openai
import psycopg
import pytest

from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.gateway.test_batches import ended, lines
from tests.inference.gateway.test_files import official
from tests.live import FAKE_CONTEXT, Deployed, LivePortal
from tests.waiting import eventually

EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
TEXTS = ["the cat sat on the mat", "猫坐在垫子上"]


@pytest.fixture
def client(live_portal: LivePortal, token: str) -> Iterator[openai.OpenAI]:
    with official(live_portal, token) as made:
        yield made


@pytest.fixture
def http(live_portal: LivePortal, token: str) -> Iterator[httpx.Client]:
    with live_portal.client(token) as made:
        yield made


def run_batch(
    client: openai.OpenAI, endpoint: str, bodies: dict[str, dict[str, Any]]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The batch once it has ended, its results and its errors by custom id."""
    requests = [
        {"custom_id": name, "method": "POST", "url": endpoint, "body": body}
        for name, body in bodies.items()
    ]
    content = "\n".join(map(json.dumps, requests)).encode()
    source = client.files.create(file=("in.jsonl", content), purpose="batch")
    made = client.batches.create(
        input_file_id=source.id, endpoint=cast(Any, endpoint), completion_window="24h"
    )
    done = ended(client, made.id)
    found = [
        {line["custom_id"]: line["response"] for line in lines(client, file)} if file else {}
        for file in (done.output_file_id, done.error_file_id)
    ]
    return done, found[0], found[1]


def charged(superuser: psycopg.Connection, tenant: Organisation) -> list[tuple[int, int, int]]:
    """Prompt and completion tokens and cost of the tenant's ledger entries, by size."""
    return superuser.execute(
        "SELECT prompt_tokens, completion_tokens, cost FROM tenants_ledgerentry "
        "WHERE tenant_id = %s ORDER BY 1, 2",
        [tenant.id],
    ).fetchall()


def result_of(http: httpx.Client, body: dict[str, Any]) -> tuple[str, httpx.Response]:
    """A submitted job's id, and its result once it has ended."""
    response = http.post("/api/v1/jobs", json=body)
    assert response.status_code == 202, response.text
    path = f"/api/v1/jobs/{response.json()['id']}"
    over = ("succeeded", "failed", "cancelled", "dead")
    eventually(lambda: http.get(path).json()["state"] in over, within=30, what="the job ends")
    return response.json()["id"], http.get(f"{path}/result")


def test_run_batch_of_embeddings_by_the_official_client(
    client: openai.OpenAI,
    embedder: Deployed,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    model = embedder.model
    bodies: dict[str, dict[str, Any]] = {
        "two": {"model": model, "input": TEXTS},
        "packed": {"model": model, "input": TEXTS[1], "encoding_format": "base64"},
        "long": {"model": model, "input": ["a", "b" * (FAKE_CONTEXT + 1)]},
        "odd": {"model": model, "input": "a", "dimensions": 3},
    }
    done, results, errors = run_batch(client, EMBEDDINGS, bodies)
    assert (done.status, done.endpoint) == ("completed", EMBEDDINGS)
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 2)
    two = openai.types.CreateEmbeddingResponse.model_validate(results["two"]["body"])
    direct = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
    assert two == direct
    sizes = [len(text.encode()) for text in TEXTS]
    assert two.usage.prompt_tokens == sum(sizes)
    packed = client.embeddings.with_raw_response.create(
        model=model, input=TEXTS[1], encoding_format="base64"
    )
    assert results["packed"]["body"] == packed.http_response.json()
    assert errors["long"]["body"]["error"]["param"] == "input[1]"
    assert errors["odd"]["body"]["error"]["code"] == "unsupported_value"
    assert (done.usage.input_tokens, done.usage.output_tokens) == (sum(sizes) + sizes[1], 0)
    # Each once by the batch, and once by the direct call.
    assert charged(superuser, tenant_a) == [
        (tokens, 0, tokens * 1000) for tokens in sorted([sizes[1], sum(sizes)] * 2)
    ]


def test_run_batch_of_rankings(
    client: openai.OpenAI, http: httpx.Client, embedder: Deployed
) -> None:
    # It ranks by its vectors: the same text is the best answer.
    body = {
        "model": embedder.model,
        "query": "a cat",
        "documents": ["a dog", "a cat", "stock prices"],
    }
    done, results, errors = run_batch(
        client, RERANK, {"all": body, "best": {**body, "top_n": 1}, "none": {**body, "top_n": 0}}
    )
    assert (done.status, done.endpoint) == ("completed", RERANK)
    direct = http.post(RERANK, json=body).json()
    for name, count in (("all", 3), ("best", 1)):
        answer = results[name]["body"]
        assert answer["results"] == direct["results"][:count]
        assert (answer["model"], answer["usage"]) == (embedder.model, direct["usage"])
    assert direct["results"][0]["index"] == 1
    assert errors["none"]["body"]["error"]["param"] == "top_n"


def test_batch_of_another_endpoint_is_refused(client: openai.OpenAI, embedder: Deployed) -> None:
    body = {"model": embedder.model, "input": "a"}
    line = {"custom_id": "a", "method": "POST", "url": EMBEDDINGS, "body": body}
    source = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    made = client.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    done = ended(client, made.id)
    assert (done.status, done.errors.data[0].code) == ("failed", "invalid_url")


def test_job_that_embeds_keeps_the_answer_and_is_charged_once(
    http: httpx.Client,
    embedder: Deployed,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    asked = {"model": embedder.model, "input": TEXTS, "encoding_format": "base64"}
    job_id, result = result_of(http, {**asked, "endpoint": EMBEDDINGS, "metadata": {"a": "b"}})
    tokens = sum(len(text.encode()) for text in TEXTS)
    assert charged(superuser, tenant_a) == [(tokens, 0, tokens * 1000)]
    assert result.json() == http.post(EMBEDDINGS, json=asked).json()
    (kind, parameters) = superuser.execute(
        "SELECT kind, parameters FROM inference_job WHERE id = %s", [job_id]
    ).fetchall()[0]
    assert (kind, parameters["metadata"], parameters["inputs"]) == ("job", {"a": "b"}, 2)
    assert TEXTS[0] not in str(parameters)
    states = superuser.execute(
        "SELECT action, outcome FROM audit_event WHERE tenant_id = %s AND action = 'inference.job'"
        " ORDER BY recorded_at, id",
        [tenant_a.id],
    ).fetchall()
    assert states == [("inference.job", "requested"), ("inference.job", "success")]


def test_job_that_ranks_keeps_the_best(http: httpx.Client, embedder: Deployed) -> None:
    asked = {"model": embedder.model, "query": "a", "documents": ["b", "a", "c"], "top_n": 2}
    job_id, result = result_of(http, {**asked, "endpoint": RERANK})
    direct = http.post(RERANK, json=asked).json()
    answer = result.json()
    assert answer.pop("id") == f"rerank-{job_id.replace('-', '')}"
    del direct["id"]
    assert answer == direct


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"endpoint": "/v1/audio"}, "invalid", "endpoint"),
        ({"endpoint": EMBEDDINGS, "messages": []}, "unknown_parameter", "messages"),
        ({"endpoint": EMBEDDINGS, "input": ""}, "empty_string", "input"),
        ({"endpoint": RERANK, "query": "a", "documents": []}, "empty_array", "documents"),
        (
            {"endpoint": RERANK, "query": "a", "documents": ["b"], "return_documents": True},
            "unsupported_parameter",
            "return_documents",
        ),
        ({"endpoint": EMBEDDINGS, "input": "a", "model": "fake-chat"}, "wrong_model_task", "model"),
        ({"messages": [{"role": "user", "content": "a"}]}, "wrong_model_task", "model"),
    ],
)
def test_job_of_what_cannot_be_embedded_is_refused_by_name(
    http: httpx.Client, embedder: Deployed, body: dict[str, Any], code: str, param: str
) -> None:
    answer = http.post("/api/v1/jobs", json={"model": embedder.model, **body})
    assert answer.status_code == 400, answer.text
    assert (answer.json()["code"], answer.json()["param"]) == (code, param)


def test_job_of_the_same_key_at_another_endpoint_is_another(
    http: httpx.Client, embedder: Deployed
) -> None:
    body = {"model": embedder.model, "endpoint": EMBEDDINGS, "input": "a"}
    sent = {"Idempotency-Key": factories.unique("key")}
    first = http.post("/api/v1/jobs", json=body, headers=sent)
    again = http.post("/api/v1/jobs", json=body, headers=sent)
    assert first.json()["id"] == again.json()["id"]
    other = http.post("/api/v1/jobs", json={**body, "endpoint": RERANK}, headers=sent)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_job_beyond_a_quota_is_refused(
    http: httpx.Client, embedder: Deployed, tenant_a: Organisation
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, tokens_day=3)
    body = {"model": embedder.model, "endpoint": EMBEDDINGS, "input": "abcd"}
    answer = http.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (429, "insufficient_quota")
    assert http.post("/api/v1/jobs", json={**body, "input": "abc"}).status_code == 202
