"""Servers with OpenAI's API that misbehave, come late, go away or are left."""

import threading

import pytest

from inference.engines.base import Done, DuplicateRequest, EngineClosed
from portal.core.errors import Invalid, Unavailable
from tests.inference.engines.doubles import Reply, answer_of, completion, usage
from tests.inference.engines.remote_support import Serve, Starter, stats_once
from tests.inference.engines.support import request
from tests.waiting import eventually

UPSTREAM_WORDS = "the tenant's own words"
ERROR = {"error": {"message": UPSTREAM_WORDS, "code": 500}}


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        (
            Reply(status=400, body={"error": {"message": "maximum context length is 8 tokens"}}),
            "context_length_exceeded",
            "8 tokens",
        ),
        (Reply(status=400, body={"message": "bad grammar"}), "request_refused", "bad grammar"),
        (Reply(status=422, body={"detail": "no such field"}), "request_refused", "no such field"),
        (Reply(status=400, body="<html>"), "request_refused", "HTTP 400"),
        (Reply(status=401, body=ERROR), "engine_failed", "key"),
        (Reply(status=403, body=ERROR), "engine_failed", "key"),
        (Reply(status=404, body=ERROR), "engine_failed", "no such model"),
        (Reply(status=500, body=ERROR), "engine_failed", "HTTP 500"),
        (Reply(status=503, body=ERROR), "engine_failed", "busy"),
        (
            Reply([{"error": {"message": "too many tokens", "code": 400}}]),
            "context_length_exceeded",
            "too many",
        ),
        (Reply([completion("x", reason="abort")]), "engine_failed", "aborted"),
        (Reply([], body=""), "engine_failed", "ended before"),
    ],
)
def test_refusal_of_the_server_is_said_in_our_codes(
    serve_openai: Serve, reply: Reply, code: str, says: str
) -> None:
    engine, sink, _ = serve_openai(reply, busy_seconds=0)
    engine.submit(request("a"))
    failure = sink.failed("a")
    assert failure.code == code
    assert says in failure.message
    assert UPSTREAM_WORDS not in failure.message
    # The engine goes on.
    assert engine.stats().failure is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply([completion("one "), completion("two ")], then="cut"),
        Reply([completion("one "), completion("two ")]),
        Reply([completion("one "), completion("two "), ERROR]),
        Reply([completion("one "), completion("two "), "{not json"]),
        Reply([completion("one "), completion("two "), b"data: \xff\xfe\n\n"]),
        Reply([completion("one "), completion("two "), {"choices": "none"}]),
        Reply([completion("one "), completion("two "), b"data: " + b"x" * (2 << 20)]),
        Reply([completion("one "), completion("two ")], then="hang"),
    ],
)
def test_stream_that_breaks_fails_after_what_it_showed(
    serve_openai: Serve, reply: Reply, capfd: pytest.CaptureFixture[str]
) -> None:
    engine, sink, _ = serve_openai(reply, between_tokens_seconds=0.3)
    engine.submit(request("a", max_tokens=50))
    assert sink.failed("a").code == "engine_failed"
    assert sink.text("a") == "one two "
    # Nothing told us how much it was: it is counted with the artefact's tokenizer.
    assert sink.tokens("a") == len("one two ")
    assert engine.drain(timeout=10)
    assert len(sink.ends("a")) == 1
    said = "".join(capfd.readouterr())
    assert UPSTREAM_WORDS not in said
    assert "one" not in said


def test_end_without_done_mark_is_a_good_end(serve_openai: Serve) -> None:
    engine, sink, _ = serve_openai(
        Reply([completion("one", reason="stop"), usage(3, 1)], then="cut")
    )
    engine.submit(request("a"))
    assert sink.end("a").request_id == "a"
    assert sink.done("a") == Done("a", "stop", 3, 1)


def test_slow_first_token_fails_in_time_and_leaves_the_server(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(
        Reply([b": waiting\n\n"], then="hang"), first_token_seconds=0.2
    )
    engine.submit(request("a"))
    failure = sink.failed("a")
    assert (failure.code, "first token" in failure.message) == ("engine_failed", True)
    assert double.gone.wait(30)


def test_busy_server_is_asked_again(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai()
    busy = [Reply(status=429), Reply(status=503, headers={"retry-after": "0"})]
    double.plan = lambda asked: busy.pop() if busy else answer_of(asked)
    engine.submit(request("a"))
    assert sink.done("a").completion_tokens == 8
    assert len(double.posts("/v1/completions")) == 3


def test_server_that_is_gone_fails_the_request_alone(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai()
    double.close()
    engine.submit(request("a"))
    failure = sink.failed("a")
    assert failure.code == "engine_failed"
    assert sink.tokens("a") == 0
    assert engine.stats().failure is None


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "code"),
    [((1,) * 4000, 97, "context_length_exceeded"), ((), 1, "invalid_prompt")],
)
def test_submit_unservable_never_reaches_the_server(
    serve_openai: Serve, prompt: tuple[int, ...], max_tokens: int, code: str
) -> None:
    engine, sink, double = serve_openai()
    engine.submit(request("a", prompt=prompt, max_tokens=max_tokens))
    assert sink.failed("a").code == code
    assert double.asked == []


def test_cancel_closes_the_stream(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(Reply([completion("one ")], then="hang"))
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.cancel("a")
    engine.cancel("nobody")
    done = sink.done("a")
    assert (done.reason, done.completion_tokens) == ("cancelled", sink.tokens("a"))
    assert double.gone.wait(30)
    assert len(sink.ends("a")) == 1


def test_cancel_tells_sglang(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(Reply([completion("one ")], then="hang"), family="sglang")
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.cancel("a")
    sink.done("a")
    (asked,) = eventually(lambda: double.posts("/abort_request"))
    assert asked.body == {"rid": "a"}


def test_cancel_at_once_ends_once(serve_openai: Serve) -> None:
    engine, sink, _ = serve_openai(Reply([completion("one ")], then="hang"))
    for n in range(50):
        engine.submit(request(f"r{n}"))
        engine.cancel(f"r{n}")
    assert engine.drain(timeout=30)
    assert all(len(sink.ends(f"r{n}")) == 1 for n in range(50))
    assert all(sink.done(f"r{n}").reason == "cancelled" for n in range(50))


def test_concurrency_bounds_what_the_server_gets(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(Reply([completion("one ")], then="hang"), concurrency=2)
    for name in "abc":
        engine.submit(request(name))
    eventually(lambda: len(double.posts("/v1/completions")) == 2)
    stats = engine.stats()
    assert (stats.slots, stats.running, stats.waiting) == (2, 2, 1)
    double.plan = answer_of
    sink.wait(lambda: bool(sink.of("a") and sink.of("b")))
    engine.cancel("a")
    assert sink.done("c").completion_tokens == 8


def test_events_of_a_turn_leave_in_one_batch(serve_openai: Serve) -> None:
    stream = b"".join(
        b'data: {"choices":[{"text":"w ","finish_reason":null}]}\n\n' for _ in range(40)
    )
    engine, sink, _ = serve_openai(Reply([stream, completion("", reason="stop"), usage(3, 40)]))
    engine.submit(request("a", max_tokens=40))
    assert sink.done("a").completion_tokens == 40
    assert len(sink.batches) < 10


def test_stats_tell_the_servers_figures(serve_openai: Serve) -> None:
    engine, _, double = serve_openai(
        Reply([], then="hang", body=""), family="vllm", poll_seconds=0.05
    )
    double.pages["/metrics"] = Reply(
        body=(
            'vllm:num_requests_running{model_name="m"} 1.0\n'
            'vllm:num_requests_waiting{model_name="m"} 2.0\n'
            'vllm:kv_cache_usage_perc{model_name="m"} 0.25\n'
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
        )
    )
    for name in "abc":
        engine.submit(request(name))
    stats = stats_once(engine, lambda s: s.waiting == 2)
    assert (stats.running, stats.cache_tokens, stats.cached_tokens) == (1, 1600, 400)
    double.pages["/metrics"] = Reply(body="{ not metrics")
    eventually(lambda: engine.stats().cache_tokens == 0)


def test_drain_waits_and_then_refuses(serve_openai: Serve) -> None:
    engine, sink, _ = serve_openai()
    engine.submit(request("a"))
    assert engine.drain(timeout=30)
    sink.done("a")
    with pytest.raises(EngineClosed):
        engine.submit(request("b"))


def test_submit_same_id_twice_is_refused(serve_openai: Serve) -> None:
    engine, _, _ = serve_openai(Reply([], then="hang", body=""))
    engine.submit(request("a"))
    with pytest.raises(DuplicateRequest):
        engine.submit(request("a"))
    assert not engine.drain(timeout=0.01)


def test_close_cancels_what_is_left_and_frees_its_thread(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(Reply([completion("one ")], then="hang"))
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.close()
    assert [sink.done("a").reason, len(sink.ends("a"))] == ["cancelled", 1]
    assert double.gone.wait(30)
    engine.close()
    assert not [t for t in threading.enumerate() if t.name == "engine-remote" and t.is_alive()]


def test_load_waits_for_a_server_that_starts(starter: Starter) -> None:
    double = starter.double(answer_of)
    double.pages["/health"] = Reply(status=503)
    engine, _ = starter.engine("openai_http", double)
    loading = threading.Thread(target=engine.load)
    loading.start()
    assert double.asked == []
    double.pages["/health"] = Reply()
    loading.join(30)
    assert len(double.posts("/v1/completions")) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (Reply(status=401), Unavailable, "key"),
        (Reply(status=400, body={"error": "no such option"}), Invalid, "no such option"),
        (Reply([completion("", reason="stop"), usage(1, 0)]), Unavailable, "without a token"),
    ],
)
def test_load_without_a_token_says_why(
    starter: Starter, reply: Reply, kind: type[Exception], says: str
) -> None:
    engine, _ = starter.engine("openai_http", starter.double(lambda asked: reply))
    with pytest.raises(kind, match=says):
        engine.load()


def test_load_of_nobody_gives_up_in_time(starter: Starter) -> None:
    double = starter.double(answer_of)
    engine, _ = starter.engine("openai_http", double, ready_seconds=0.3)
    double.close()
    with pytest.raises(Unavailable, match="not ready"):
        engine.load()


def test_close_ends_a_load_that_waits(starter: Starter) -> None:
    double = starter.double(lambda asked: Reply([], then="hang", body=""))
    engine, _ = starter.engine("openai_http", double)
    found: list[BaseException] = []

    def load() -> None:
        with pytest.raises(EngineClosed) as refused:
            engine.load()
        found.append(refused.value)

    loading = threading.Thread(target=load)
    loading.start()
    eventually(lambda: double.posts("/v1/completions"))
    engine.close()
    loading.join(30)
    assert found
