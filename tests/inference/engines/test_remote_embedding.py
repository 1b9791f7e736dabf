"""Embeddings and rankings by servers elsewhere, against doubles of each family."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.engines import create_engine
from inference.engines.base import Done, Embedding, Engine, GenerationRequest, Message, Sampling
from inference.engines.vectors import Vector, packed_vectors, unpack_vector
from inference.inputs import InputEncoder, load_encoder
from portal.core.errors import Invalid, Unavailable
from tests.inference.engines.doubles import Asked, Double, Plan, Reply, answer_of, words
from tests.inference.engines.encoders import (
    INFO,
    encoder_artefact,
    openai_embeddings,
    packed,
    score_of,
    server_of,
    vector_of,
    write_encoder,
)
from tests.inference.engines.support import Sink, request
from tests.waiting import eventually

BY_IDS = ("vllm", "sglang", "llamacpp")
FAMILIES = ("openai", *BY_IDS, "tei")
CROSS = "BertForSequenceClassification"

Serve = Callable[..., tuple[Engine, Sink, Double]]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder")
    return encoder_artefact(folder / "store", write_encoder(folder / "source"))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranker")
    source = write_encoder(folder / "source", architecture=CROSS)
    return encoder_artefact(folder / "store", source)


@pytest.fixture
def make(started: list[Any]) -> Callable[..., tuple[Engine, Sink, Double]]:
    def build(
        artefact: Path, plan: Plan, *, info: Any = INFO, **options: Any
    ) -> tuple[Engine, Sink, Double]:
        """An engine that is not loaded yet, and its server."""
        double = Double(plan)
        started.append(double)
        kind = "reranker" if "reranker" in info.get("model_type", {}) else "embedding"
        double.pages["/info"] = Reply(body={"model_type": {kind: {}}} | info)
        sink = Sink()
        engine = create_engine(
            "openai_http",
            artefact_dir=artefact,
            context_length=40,
            options={"url": double.url, "poll_seconds": 0, "ready_seconds": 30} | options,
            emit=sink,
        )
        started.append(engine)
        return engine, sink, double

    return build


@pytest.fixture
def serve(make: Serve) -> Serve:
    def build(artefact: Path, family: str = "vllm", **options: Any) -> tuple[Engine, Sink, Double]:
        """A loaded engine, and its server."""
        engine, sink, double = make(artefact, server_of(family), family=family, **options)
        engine.load()
        double.asked.clear()
        return engine, sink, double

    return build


RANKER_INFO = INFO | {"model_type": {"reranker": {}}}


def asks(
    name: str, *texts: str, query: str = "", tokens: int = 4, kind: Any = "embed", **more: Any
) -> GenerationRequest:
    """A request of documents; with a query before them it ranks."""
    messages = [Message("document", text) for text in texts]
    counts = [tokens] * len(texts)
    if query:
        kind = "rank"
        messages.insert(0, Message("query", query))
        counts.insert(0, more.pop("query_tokens", tokens))
    embedding = Embedding(kind, tuple(counts), **more)
    return GenerationRequest(
        name, (), tuple(messages), Sampling(0), cache_scope="tenant", embedding=embedding
    )


def answer(sink: Sink, name: str) -> list[Vector]:
    assert isinstance(sink.end(name), Done), sink.events
    return [unpack_vector(one) for one in packed_vectors(sink.text(name))]


@pytest.mark.parametrize("family", FAMILIES)
def test_embed_gives_a_vector_of_each_input_in_order(
    embedder: Path, serve: Serve, family: str
) -> None:
    engine, sink, double = serve(embedder, family)
    # Of "[CLS] passage: a [SEP]" an even number of tokens, of "a b" an odd one.
    engine.submit(asks("a", "a", "a b", "c"))
    vectors = answer(sink, "a")
    path = "/embed" if family == "tei" else "/v1/embeddings"
    (asked,) = double.posts(path)
    sent = asked.body["inputs" if family == "tei" else "input"]
    for vector, one in zip(vectors, sent, strict=True):
        assert list(vector) == pytest.approx([x / 5 for x in vector_of(one)])
    if family in BY_IDS:
        assert sent == [[2, 10, 4, 3], [2, 10, 4, 5, 3], [2, 10, 6, 3]]
    else:
        assert sent == ["passage: a", "passage: a b", "passage: c"]
    # By the server's own count, or by ours where it tells none.
    assert sink.done("a").prompt_tokens == (12 if family == "tei" else sum(map(len, sent)))
    assert sink.done("a").completion_tokens == sink.tokens("a") == 0
    assert double.asked == [asked]


def test_embed_asks_each_family_as_it_wants_it(embedder: Path, serve: Serve) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "openai": {"model": "the-model", "encoding_format": "base64"},
        "vllm": {"model": "the-model", "encoding_format": "base64", "cache_salt": "tenant"},
        "sglang": {"model": "the-model"},
        "llamacpp": {"model": "the-model", "encoding_format": "base64"},
        "tei": {"truncate": False, "normalize": True},
    }
    for family, body in wanted.items():
        engine, sink, double = serve(embedder, family)
        engine.submit(asks("a", "a"))
        sink.done("a")
        (asked,) = double.asked
        assert {k: v for k, v in asked.body.items() if not k.startswith("input")} == body


def test_token_ids_are_those_that_were_counted(embedder: Path, serve: Serve) -> None:
    """Control tokens that a caller spells are text; nothing is cut, whatever the file says."""
    engine, sink, double = serve(embedder)
    text = "[SEP]a b c d a b c d a"
    engine.submit(asks("a", text, tokens=12))
    sink.done("a")
    ((ids,),) = (asked.body["input"] for asked in double.asked)
    encoder = load_encoder(embedder, "embed")
    assert isinstance(encoder, InputEncoder)
    assert len(ids) == encoder.count(text, "document") == 12
    assert ids.count(3) == 1


def test_texts_or_token_ids_can_be_chosen(embedder: Path, make: Serve, serve: Serve) -> None:
    engine, sink, double = serve(embedder, "openai", api="completions")
    engine.submit(asks("a", "a"))
    sink.done("a")
    assert double.asked[0].body["input"] == [[2, 10, 4, 3]]
    engine, sink, double = serve(embedder, "vllm", api="chat")
    engine.submit(asks("a", "a"))
    sink.done("a")
    assert double.asked[0].body["input"] == ["passage: a"]
    with pytest.raises(Invalid, match="TEI takes no token ids"):
        make(embedder, server_of("tei"), family="tei", api="completions")


def test_embed_with_fewer_dimensions_cuts_and_brings_to_length_one(
    embedder: Path, serve: Serve
) -> None:
    engine, sink, _ = serve(embedder)
    engine.submit(asks("a", "a", dimensions=2))
    (vector,) = answer(sink, "a")
    assert list(vector) == [0.0, 1.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_rank_by_a_cross_encoder_gives_the_servers_scores_in_order(
    ranker: Path, serve: Serve, family: str
) -> None:
    engine, sink, double = serve(ranker, family, info=RANKER_INFO)
    documents = ("a", "a b c", "a b")
    engine.submit(asks("a", *documents, query="b", query_tokens=0))
    (scores,) = answer(sink, "a")
    texts = [f"passage: {text}" for text in documents]
    assert list(scores) == pytest.approx([score_of(text) for text in texts])
    (asked,) = double.asked
    assert asked.path == ("/rerank" if family == "tei" else "/v1/rerank")
    assert asked.body["query"] == "b"
    assert asked.body["texts" if family == "tei" else "documents"] == texts
    told = family in ("openai", "vllm", "llamacpp")
    assert sink.done("a").prompt_tokens == (7 if told else 12)
    if family == "tei":
        assert asked.body["truncate"] is False


def test_rank_by_a_model_that_embeds_compares_vectors(embedder: Path, serve: Serve) -> None:
    engine, sink, double = serve(embedder)
    engine.submit(asks("a", "a", "a b", query="b"))
    (scores,) = answer(sink, "a")
    # The query has an even number of tokens, as the first document.
    assert list(scores) == pytest.approx([1.0, 12 / 25], abs=1e-6)
    (asked,) = double.asked
    assert asked.body["input"][0] == [2, 9, 5, 3]


def test_many_inputs_go_in_calls_that_the_server_takes(embedder: Path, serve: Serve) -> None:
    engine, sink, double = serve(embedder, "tei")
    texts = ["a", "a b", "c", "d", "a b c", "a", "b"]
    engine.submit(asks("a", *texts))
    assert len(answer(sink, "a")) == 7
    sent = [asked.body["inputs"] for asked in double.asked]
    assert [len(part) for part in sent] == [3, 3, 1]
    assert [text for part in sent for text in part] == [f"passage: {text}" for text in texts]


def test_many_documents_are_ranked_together_though_asked_for_apart(
    ranker: Path, serve: Serve
) -> None:
    engine, sink, double = serve(ranker, "tei", info=RANKER_INFO)
    documents = ["a" * n for n in range(1, 8)]
    engine.submit(asks("a", *documents, query="b", query_tokens=0))
    (scores,) = answer(sink, "a")
    assert list(scores) == pytest.approx([score_of(f"passage: {text}") for text in documents])
    assert len(double.asked) == 3


def test_long_inputs_go_in_bodies_that_the_server_takes(embedder: Path, serve: Serve) -> None:
    engine, sink, double = serve(embedder, "openai")
    engine.submit(asks("a", "a " * 150_000, "b " * 150_000, "c"))
    assert len(answer(sink, "a")) == 3
    assert [len(asked.body["input"]) for asked in double.asked] == [1, 2]


BAD: list[tuple[Any, str, str]] = [
    ({"data": []}, "engine_failed", "each input once"),
    ({"data": [{"index": 1, "embedding": [1, 0, 0, 0]}]}, "engine_failed", "each input once"),
    ({"data": [{"index": 0, "embedding": []}]}, "engine_failed", "malformed"),
    ({"data": [{"index": 0, "embedding": [1, 0]}]}, "engine_failed", "another model"),
    ({"data": [{"index": 0, "embedding": "%%%"}]}, "engine_failed", "malformed"),
    ({"data": [{"index": 0, "embedding": packed([math.nan] * 4)}]}, "engine_failed", "malformed"),
    ({"data": "none"}, "engine_failed", "malformed"),
    ("<html>", "engine_failed", "malformed"),
]


@pytest.mark.parametrize(("body", "code", "says"), BAD)
def test_answer_that_is_none_fails_the_request_alone(
    embedder: Path, serve: Serve, body: Any, code: str, says: str
) -> None:
    engine, sink, double = serve(embedder)
    double.plan = lambda asked: Reply(body=body)
    engine.submit(asks("a", "a"))
    failure = sink.failed("a")
    assert failure.code == code
    assert says in failure.message
    double.plan = openai_embeddings
    engine.submit(asks("b", "a"))
    assert len(answer(sink, "b")) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"results": [{"index": 0, "relevance_score": 0.5}]}, "each input once"),
        ({"results": [{"index": 0}, {"index": 1}]}, "malformed"),
        ([{"index": 0, "score": 1e39}, {"index": 1, "score": 0}], "malformed"),
        ([{"index": 1, "score": 1}, {"index": 1, "score": 0}], "each input once"),
    ],
)
def test_ranking_that_is_none_fails(ranker: Path, serve: Serve, body: Any, says: str) -> None:
    engine, sink, double = serve(ranker)
    double.plan = lambda asked: Reply(body=body)
    engine.submit(asks("a", "a", "b", query="c", query_tokens=0))
    assert says in sink.failed("a").message


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        (
            Reply(
                status=413,
                body={
                    "error": "`inputs` must have less than 40 tokens. Given: 41",
                    "error_type": "Validation",
                },
            ),
            "context_length_exceeded",
            "Given: 41",
        ),
        (
            Reply(status=422, body={"error": "bad text", "error_type": "Tokenizer"}),
            "request_refused",
            "bad text",
        ),
        (
            Reply(status=424, body={"error": "model is not an embedding model"}),
            "engine_failed",
            "something else",
        ),
        (Reply(status=429, body={"error": "Model is overloaded"}), "engine_failed", "busy"),
        (Reply(status=401), "engine_failed", "key"),
        (Reply(status=501, body={"error": {"message": "x"}}), "engine_failed", "no such model"),
        (Reply(status=500), "engine_failed", "HTTP 500"),
        (Reply(events=[b"[["], then="cut"), "engine_failed", "lost"),
    ],
)
def test_refusal_of_the_server_is_said_in_our_codes(
    embedder: Path, serve: Serve, reply: Reply, code: str, says: str
) -> None:
    engine, sink, double = serve(embedder, "tei", busy_seconds=0)
    double.plan = lambda asked: reply
    engine.submit(asks("a", "a"))
    failure = sink.failed("a")
    assert failure.code == code
    assert says in failure.message
    assert engine.stats().failure is None


def test_busy_server_is_asked_again_for_that_call_alone(embedder: Path, serve: Serve) -> None:
    engine, sink, double = serve(embedder, "tei")
    good, answers = server_of("tei"), [200, 429, 503, 200]

    def plan(asked: Asked) -> Reply:
        status = answers.pop(0)
        return good(asked) if status == 200 else Reply(status=status)

    double.plan = plan
    engine.submit(asks("a", "a", "b", "c", "d"))
    assert len(answer(sink, "a")) == 4
    assert [len(asked.body["inputs"]) for asked in double.asked] == [3, 1, 1, 1]


def test_slow_answer_fails_in_time_and_leaves_the_server(embedder: Path, serve: Serve) -> None:
    engine, sink, double = serve(embedder, first_token_seconds=0.2)
    double.plan = lambda asked: Reply([b" "], then="hang")
    engine.submit(asks("a", "a"))
    assert "in time" in sink.failed("a").message
    assert double.gone.wait(30)


def test_cancel_leaves_the_server(embedder: Path, serve: Serve) -> None:
    engine, sink, double = serve(embedder)
    double.plan = lambda asked: Reply([b" "], then="hang")
    engine.submit(asks("a", "a"))
    eventually(lambda: double.posts("/v1/embeddings"))
    engine.cancel("a")
    assert sink.done("a").reason == "cancelled"
    assert double.gone.wait(30)


def test_requests_that_do_not_fit_are_refused_without_asking(
    embedder: Path, ranker: Path, serve: Serve
) -> None:
    engine, sink, double = serve(embedder)
    engine.submit(asks("long", "a", tokens=41))
    assert sink.failed("long").code == "context_length_exceeded"
    engine.submit(request("text"))
    assert "generates no text" in sink.failed("text").message
    assert double.asked == []
    engine, sink, double = serve(ranker)
    engine.submit(asks("embed", "a"))
    assert "makes no embeddings" in sink.failed("embed").message
    assert double.asked == []


def test_embedding_by_a_model_that_generates_is_refused(
    artefact: Path, make: Serve, embedder: Path
) -> None:
    engine, sink, double = make(artefact, answer_of, family="vllm")
    engine.load()
    double.asked.clear()
    engine.submit(asks("a", "a"))
    assert sink.failed("a").code == "request_refused"
    assert double.asked == []
    engine, sink, _ = make(artefact, lambda asked: words(1), family="tei")
    with pytest.raises(Invalid, match="can't serve a model that generates"):
        engine.load()
    engine, sink, _ = make(embedder, answer_of, family="tgi")
    with pytest.raises(Invalid, match="can't serve a model that embeds"):
        engine.load()


@pytest.mark.parametrize(
    ("info", "fault", "says"),
    [
        (INFO | {"model_type": {"reranker": {}}}, Invalid, "does something else"),
        (INFO | {"max_input_length": 39}, Invalid, "39 tokens at most"),
        ({"max_client_batch_size": None, "max_input_length": 40}, Unavailable, "is another"),
    ],
)
def test_load_refuses_a_server_that_does_not_fit(
    embedder: Path, make: Serve, info: Any, fault: type[Exception], says: str
) -> None:
    engine, _, _ = make(embedder, server_of("tei"), family="tei", info=info)
    with pytest.raises(fault, match=says):
        engine.load()


def test_load_refuses_another_model(embedder: Path, make: Serve) -> None:
    body = {"data": [{"index": n, "embedding": [1.0, 0.0]} for n in range(2)]}
    engine, _, _ = make(embedder, lambda asked: Reply(body=body), family="vllm")
    with pytest.raises(Unavailable, match="2 dimensions, and this artefact's model makes 4"):
        engine.load()


def test_load_waits_for_the_server(embedder: Path, make: Serve) -> None:
    engine, sink, double = make(embedder, server_of("tei"), family="tei")
    seen: list[str] = []

    class Late(dict[str, Reply]):
        def get(self, path: str, default: Any = None) -> Any:
            seen.append(path)
            ready = len(seen) > 2
            return super().get(path, default) if ready else Reply(status=503)

    double.pages = Late(double.pages)
    engine.load()
    engine.submit(asks("a", "a"))
    assert len(answer(sink, "a")) == 1
