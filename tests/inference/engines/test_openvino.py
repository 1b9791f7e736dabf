"""The OpenVINO engine with the shipped model, as it is served: in its own process."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.artefacts import import_byte_level, import_gguf, load_manifest, shipped_gguf
from inference.engines import create_engine
from inference.engines.base import (
    Done,
    Engine,
    Event,
    GenerationRequest,
    Message,
    Sampling,
    Structure,
    Token,
)
from inference.engines.schemas import checked_schema
from inference.prompts import PromptEncoder
from portal.core.errors import PortalError
from tests.inference.engines.call_forms import FORMS, check_calls, held
from tests.inference.engines.schema_strategies import check_answer, schemas
from tests.inference.engines.support import Sink

CONTEXT = 2048


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    manifest = import_gguf(
        shipped_gguf(), store, name="SmolLM2", licence="Apache-2.0", provenance="test"
    )
    return store / manifest.id


@pytest.fixture(scope="module")
def loaded(artefact: Path) -> Iterator[tuple[Engine, list[Sink]]]:
    sinks: list[Sink] = []

    def emit(events: Sequence[Event]) -> None:
        sinks[-1](events)

    engine = create_engine(
        "auto",
        artefact_dir=artefact,
        context_length=CONTEXT,
        options={"cache_mb": 16, "slots": 4},
        emit=emit,
    )
    engine.load()
    yield engine, sinks
    engine.close()


@pytest.fixture
def engine(loaded: tuple[Engine, list[Sink]]) -> Engine:
    return loaded[0]


@pytest.fixture
def sink(loaded: tuple[Engine, list[Sink]]) -> Iterator[Sink]:
    fresh = Sink()
    loaded[1].append(fresh)
    yield fresh
    stats = loaded[0].stats()
    assert (stats.running, stats.waiting, stats.failure) == (0, 0, None)


@pytest.fixture(scope="module")
def capital(artefact: Path) -> list[int]:
    question = Message("user", "What is the capital of France?")
    return PromptEncoder.load(artefact).encode([question])


def generation(name: str, ids: list[int], **sampling: object) -> GenerationRequest:
    return GenerationRequest(name, ids, (), Sampling(**sampling))  # type: ignore[arg-type]


def test_generate_greedily_answers_and_stops(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("a", capital, max_tokens=60, temperature=0.0))
    done = sink.done("a")
    assert "Paris" in sink.text("a")
    assert "<|im_end|>" not in sink.text("a")
    assert done == Done("a", "stop", len(capital), sink.tokens("a"))
    assert len([e for e in sink.of("a") if isinstance(e, Token)]) > 3


def test_generate_from_a_raw_text_continues_it(engine: Engine, sink: Sink, artefact: Path) -> None:
    text = Message("", "The capital of France is")
    ids = PromptEncoder.load(artefact).encode_raw([text])
    engine.submit(generation("a", ids, max_tokens=8, temperature=0.0))
    sink.done("a")
    assert "Paris" in sink.text("a")


def test_generate_to_max_tokens_ends_with_length(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("a", capital, max_tokens=3, temperature=0.0))
    assert sink.done("a") == Done("a", "length", len(capital), 3)
    assert sink.tokens("a") == 3


def test_generate_with_stop_across_tokens_ends_before_it(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    stop = ("nowhere", "l of Fr")
    engine.submit(generation("a", capital, max_tokens=60, temperature=0.0, stop=stop))
    done = sink.done("a")
    assert sink.text("a") == "The capita"
    assert (done.reason, done.stop) == ("stop", 1)
    assert done.completion_tokens == sink.tokens("a") < 8


def test_generate_with_seed_is_repeatable_and_without_differs(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    sampled = {"max_tokens": 16, "temperature": 1.5}
    for name, seed in (("a", 7), ("b", 7), ("c", None), ("d", None), ("e", None)):
        engine.submit(generation(name, capital, seed=seed, **sampled))
        sink.done(name)
    assert sink.text("a") == sink.text("b")
    assert len({sink.text(name) for name in "cde"}) > 1


def test_generate_with_zero_top_p_is_greedy(engine: Engine, sink: Sink, capital: list[int]) -> None:
    engine.submit(generation("a", capital, max_tokens=5, temperature=0.0))
    engine.submit(generation("b", capital, max_tokens=5, temperature=1.0, top_p=0.0))
    sink.done("a")
    sink.done("b")
    assert sink.text("a") == sink.text("b")


def test_generate_with_top_k_of_one_is_greedy(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("a", capital, max_tokens=5, temperature=0.0))
    engine.submit(generation("b", capital, max_tokens=5, temperature=5.0, top_k=1))
    engine.submit(generation("c", capital, max_tokens=5, temperature=5.0, seed=3))
    assert {sink.done(name).reason for name in "abc"} == {"length"}
    assert sink.text("a") == sink.text("b") != sink.text("c")


def test_generate_with_min_tokens_does_not_end_before(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("a", capital, max_tokens=60, temperature=0.0))
    first = sink.done("a").completion_tokens
    engine.submit(generation("b", capital, max_tokens=60, temperature=0.0, min_tokens=first + 5))
    assert sink.done("b").completion_tokens >= first + 5
    assert "<|im_end|>" not in sink.text("b")


def test_generate_with_logprobs_tells_one_of_each_token(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    asked = {"max_tokens": 30, "logprobs": 3, "stop": ("Paris",)}
    engine.submit(generation("a", capital, temperature=0.0, **asked))
    engine.submit(generation("b", capital, temperature=5.0, top_k=1, **asked))
    engine.submit(generation("c", capital, temperature=0.0, max_tokens=5))
    heard = []
    for name in "ab":
        done = sink.done(name)
        tokens = [e for e in sink.of(name) if isinstance(e, Token)]
        assert all(len(event.logprobs) == event.tokens for event in tokens)
        told = [entry for event in tokens for entry in event.logprobs]
        assert len(told) == done.completion_tokens
        assert b"".join(entry.token for entry in told).startswith(sink.text(name).encode())
        assert all(entry.logprob <= 0.0 and entry.top == () for entry in told)
        heard.append(told)
    # They are the model's own, before temperature and top_k.
    assert heard[0] == heard[1]
    sink.done("c")
    assert all(e.logprobs == () for e in sink.of("c") if isinstance(e, Token))


def test_cancel_ends_one_and_leaves_the_others(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("a", [*capital, 5], max_tokens=500, temperature=0.0))
    engine.submit(generation("b", capital, max_tokens=20, temperature=0.0))
    sink.wait(lambda: bool(sink.text("a")))
    engine.cancel("a")
    done = sink.done("a")
    assert done.reason == "cancelled"
    assert done.completion_tokens == sink.tokens("a") < 500
    assert "Paris" in sink.text("b") or sink.done("b").reason == "stop"
    sink.done("b")


@pytest.mark.parametrize(
    ("ids", "max_tokens", "code"),
    [
        ([1] * 2000, 49, "context_length_exceeded"),
        ([1] * 1200, 49, "context_length_exceeded"),
        ([49152], 5, "invalid_prompt"),
        ([-1], 5, "invalid_prompt"),
        ([], 5, "invalid_prompt"),
    ],
)
def test_refuse_unservable_without_harming_the_next(
    engine: Engine, sink: Sink, capital: list[int], ids: list[int], max_tokens: int, code: str
) -> None:
    engine.submit(generation("bad", ids, max_tokens=max_tokens))
    engine.submit(generation("good", capital, max_tokens=2, temperature=0.0))
    assert sink.failed("bad").code == code
    assert sink.done("good").completion_tokens == 2


def test_refuse_bad_sampling_in_the_engines_words(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("bad", capital, max_tokens=5, top_p=1.5))
    assert sink.failed("bad").code == "request_refused"
    assert "top_p" in sink.failed("bad").message


def test_more_than_the_cache_holds_waits_and_all_finish(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    # 16 MiB hold 38 blocks of 32 tokens, two of these at a time, though there are four slots.
    names = [str(index) for index in range(4)]
    for name in names:
        engine.submit(generation(name, capital, max_tokens=530, temperature=0.0))
    for name in names:
        assert sink.done(name).completion_tokens == sink.tokens(name)


def test_load_without_weights_is_refused(tmp_path: Path) -> None:
    manifest = import_byte_level(tmp_path, context_length=64)
    engine = create_engine(
        "openvino",
        artefact_dir=tmp_path / manifest.id,
        context_length=64,
        options={},
        emit=Sink(),
    )
    with pytest.raises(PortalError, match="no weights"):
        engine.load()


def test_import_reaches_for_nothing_and_writes_nothing_home(tmp_path: Path) -> None:
    program = """
import sys
reached = []
sys.addaudithook(lambda name, args: reached.append(name) if name in (
    "socket.connect", "socket.getaddrinfo", "urllib.Request") else None)
import inference.engines.openvino
assert sys.modules["openvino_telemetry"] is None
assert "openvino" in sys.modules
assert not reached, reached
"""
    root = Path(__file__).parents[3]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_manifest_describes_the_shipped_model(artefact: Path) -> None:
    manifest = load_manifest(artefact)
    assert (manifest.architecture, manifest.quantization) == ("llama", "Q4_1")
    assert (manifest.context_length, manifest.vocab_size) == (8192, 49152)
    assert (manifest.bos_token_id, manifest.eos_token_ids) == (1, (2, 0))


def test_answer_within_any_schema_validates_and_the_engine_lives_on(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    numbers = count()

    @given(schemas(), st.integers(0, 2**32))
    @settings(max_examples=12, deadline=None)
    def check(schema: Any, seed: int) -> None:
        name = f"s{next(numbers)}"
        text = checked_schema(json.dumps(schema), "response_format")
        structure = Structure("json_schema", text)
        engine.submit(generation(name, capital, max_tokens=60, seed=seed, structure=structure))
        if sink.done(name).reason == "stop":
            check_answer(sink.text(name), schema)

    check()


@pytest.mark.parametrize(
    "bounds",
    [(0, 120), (110, 120), (1234, 1456), (-129, -110), (7, None), (-15, None), (None, -25)],
)
def test_answer_within_bounds_of_an_integer_stays_within(
    engine: Engine, sink: Sink, capital: list[int], bounds: tuple[int | None, int | None]
) -> None:
    named = {"minimum": bounds[0], "maximum": bounds[1]}
    schema = {"type": "integer"} | {name: end for name, end in named.items() if end is not None}
    structure = Structure("json_schema", checked_schema(json.dumps(schema), "response_format"))
    for seed in range(16):
        sampling = {"seed": seed, "temperature": 2.0, "max_tokens": 40}
        engine.submit(generation(f"n{seed}", capital, structure=structure, **sampling))
    for seed in range(16):
        if sink.done(f"n{seed}").reason == "stop":
            check_answer(sink.text(f"n{seed}"), schema)


def test_answer_that_outgrows_a_long_bound_is_cut_right_there(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    members = {"kind": {"enum": ["a", "b"]}, "said": {"type": "string", "maxLength": 150}}
    schema = {"type": "object", "properties": members, "required": ["kind", "said"]}
    structure = Structure("json_schema", checked_schema(json.dumps(schema), "response_format"))
    names = [f"long{seed}" for seed in range(8)]
    for seed, name in enumerate(names):
        sampling = {"seed": seed, "temperature": 1.2, "max_tokens": 200}
        engine.submit(generation(name, capital, structure=structure, **sampling))
    cut = 0
    for name in names:
        done, text = sink.done(name), sink.text(name)
        if done.reason == "stop":
            check_answer(text, schema)
        elif done.completion_tokens < 200:
            cut += 1
            end = '\\"}' if text.endswith("\\") else '"}'
            check_answer(text + end, schema)
            with pytest.raises(jsonschema.ValidationError):
                check_answer(text + "." * 20 + end, schema)
    assert cut


@pytest.mark.parametrize(
    "schema",
    ["not json", '{"type":"nonsense"}', '{"type":"string","minLength":2,"maxLength":1}', "[]"],
)
def test_refuse_a_bad_schema_alone_leaves_its_neighbour_running(
    engine: Engine, sink: Sink, capital: list[int], schema: str
) -> None:
    engine.submit(generation("neighbour", capital, max_tokens=20, temperature=0.0))
    structure = Structure("json_schema", schema)
    engine.submit(generation("bad", capital, max_tokens=20, structure=structure))
    assert sink.failed("bad").code == "request_refused"
    sink.done("neighbour")
    assert "Paris" in sink.text("neighbour")


@pytest.mark.parametrize("form", FORMS)
def test_answer_that_must_call_does_so_and_one_that_may_is_free(
    engine: Engine, sink: Sink, capital: list[int], form: str
) -> None:
    for name, forced in (("must", True), ("may", False)):
        structure = Structure("calls", calls=held(form, forced=forced, one=True))
        engine.submit(
            generation(name, capital, max_tokens=200, temperature=0.0, structure=structure)
        )
    assert sink.done("must").reason == "stop"
    assert check_calls(form, sink.text("must")) == 1
    sink.done("may")
    assert "Paris" in sink.text("may")


def test_cancel_a_structured_answer_ends_it(engine: Engine, sink: Sink, capital: list[int]) -> None:
    structure = Structure("json_object")
    engine.submit(generation("a", capital, max_tokens=1000, seed=1, structure=structure))
    sink.wait(lambda: sink.tokens("a") > 2)
    engine.cancel("a")
    assert sink.done("a").reason == "cancelled"


def test_tell_the_log_probability_of_each_chosen_token(
    engine: Engine, sink: Sink, capital: list[int]
) -> None:
    engine.submit(generation("a", capital, max_tokens=60, temperature=0.0, logprobs=0))
    done = sink.done("a")
    told = [entry for e in sink.of("a") if isinstance(e, Token) for entry in e.logprobs]
    assert len(told) == done.completion_tokens
    assert b"".join(entry.token for entry in told).decode() == sink.text("a")
    assert all(entry.logprob <= 0 and entry.top == () for entry in told)
