"""The adapter to servers with OpenAI's API, against doubles that behave well and badly."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import (
    Done,
    DuplicateRequest,
    Engine,
    EngineClosed,
    GenerationRequest,
    Likely,
    Message,
    Sampling,
    Structure,
    Token,
    TokenLogprob,
)
from portal.core.errors import Invalid, Unavailable
from tests.inference.engines.doubles import (
    Asked,
    Double,
    Plan,
    Reply,
    answer_of,
    completion,
    delta,
    usage,
    words,
)
from tests.inference.engines.remote_support import Starter
from tests.inference.engines.support import Sink, request
from tests.waiting import eventually

Serve = Callable[..., tuple[Engine, Sink, Double]]
RECORDED = Path(__file__).parent / "recorded"
UPSTREAM_WORDS = "the tenant's own words"


@pytest.fixture
def serve(starter: Starter) -> Serve:
    def build(plan: Plan | Reply = answer_of, **options: Any) -> tuple[Engine, Sink, Double]:
        """A loaded engine; ``plan`` answers what comes after loading."""
        double = starter.double(answer_of)
        engine, sink = starter.engine("openai_http", double, **options)
        if options.get("api") == "chat" or options.get("family") == "tgi":
            double.plan = lambda asked: Reply([delta("x", reason="stop"), usage(1, 1), "[DONE]"])
        engine.load()
        double.asked.clear()
        double.plan = plan if callable(plan) else lambda asked: plan
        return engine, sink, double

    return build


def test_submit_sends_token_ids_and_ends_with_the_servers_usage(serve: Serve) -> None:
    engine, sink, double = serve(words(5))
    engine.submit(request("a", max_tokens=5, temperature=0.5, top_p=0.9, seed=7))
    assert sink.done("a") == Done("a", "length", 3, 5)
    assert sink.text("a") == "w0 w1 w2 w3 w4 "
    assert sink.tokens("a") == 5
    (asked,) = double.posts("/v1/completions")
    assert asked.body == {
        "model": "the-model",
        "prompt": [5, 6, 7],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "authorization" not in asked.headers


def test_submit_in_chat_sends_messages_and_tools(serve: Serve) -> None:
    reply = Reply([delta("", role="assistant"), delta("hi"), delta(reason="stop"), usage(9, 2)])
    engine, sink, double = serve(reply, api="chat", model="named")
    tools = [{"type": "function", "function": {"name": "f"}}]
    engine.submit(
        GenerationRequest(
            "a", (5,), (Message("user", "hey"),), Sampling(4), tools=json.dumps(tools)
        )
    )
    assert sink.done("a") == Done("a", "stop", 9, 2)
    assert (sink.text("a"), sink.tokens("a")) == ("hi", 2)
    (asked,) = double.posts("/v1/chat/completions")
    assert asked.body["messages"] == [{"role": "user", "content": "hey"}]
    assert asked.body["tools"] == tools
    assert asked.body["model"] == "named"


def test_submit_bare_prompt_in_chat_is_refused(serve: Serve) -> None:
    engine, sink, _ = serve(api="chat")
    engine.submit(GenerationRequest("a", (5,), (Message("", "once upon"),), Sampling(4)))
    assert sink.failed("a").code == "request_refused"


def test_submit_in_chat_writes_reasoning_and_calls_as_models_do(serve: Serve) -> None:
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"x":1}'}}
    reply = Reply(
        [
            delta(reasoning_content="hm"),
            delta("so "),
            delta(tool_calls=[call]),
            delta(tool_calls=[more]),
            delta(reason="tool_calls"),
            usage(1, 6),
        ]
    )
    engine, sink, _ = serve(reply, api="chat")
    engine.submit(request("a", max_tokens=9))
    assert sink.done("a") == Done("a", "stop", 1, 6)
    assert sink.text("a") == (
        '<think>hm</think>so <tool_call>{"name": "f", "arguments": {"x":1}}</tool_call>'
    )


SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}}}'
STRICT = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": json.loads(SCHEMA), "strict": True},
}


@pytest.mark.parametrize(
    ("options", "sampling", "sent"),
    [
        ({"family": "vllm"}, {"top_k": 9}, {"top_k": 9, "cache_salt": "tenant"}),
        ({"family": "vllm"}, {"min_tokens": 2}, {"min_tokens": 2}),
        ({"family": "vllm"}, {"structure": Structure("json_schema", SCHEMA)}, {"response_format": STRICT}),
        ({"family": "vllm"}, {"structure": Structure("json_object")}, {"response_format": {"type": "json_object"}}),
        ({"family": "sglang"}, {"top_k": 9}, {"top_k": 9, "extra_key": "tenant", "rid": "a"}),
        ({"family": "sglang"}, {"structure": Structure("json_schema", SCHEMA)}, {"json_schema": SCHEMA}),
        ({"family": "sglang"}, {"structure": Structure("json_object")}, {"json_schema": '{"type":"object"}'}),
        ({"family": "llamacpp"}, {"top_p": 0}, {"temperature": 0, "top_p": 1.0, "top_k": 0, "cache_prompt": False}),
        ({"family": "llamacpp", "share_cache": True}, {"top_k": 3}, {"cache_prompt": True, "top_k": 3}),
        ({"family": "llamacpp"}, {"structure": Structure("json_schema", SCHEMA)}, {"json_schema": json.loads(SCHEMA)}),
        ({"family": "tgi"}, {"structure": Structure("json_schema", SCHEMA)}, {"response_format": {"type": "json_object", "value": json.loads(SCHEMA)}}),
        ({"api": "chat"}, {"structure": Structure("json_object")}, {"response_format": {"type": "json_object"}}),
        ({"api": "chat"}, {"logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({}, {"logprobs": 2, "stop": ("x",)}, {"logprobs": 2, "stop": ["x"]}),
    ],
)  # fmt: skip
def test_submit_asks_each_family_in_its_own_words(
    serve: Serve, options: dict[str, Any], sampling: dict[str, Any], sent: dict[str, Any]
) -> None:
    engine, sink, double = serve(words(1), **options)
    made = Sampling(**{"max_tokens": 1} | sampling)
    message = (Message("user", "hey"),)
    engine.submit(GenerationRequest("a", (5,), message, made, cache_scope="tenant"))
    sink.end("a")
    (asked,) = (a for a in double.asked if "completions" in a.path)
    assert {name: asked.body[name] for name in sent} == sent


def test_submit_without_scope_shares_no_cache(serve: Serve) -> None:
    engine, sink, double = serve(family="vllm")
    for name in "ab":
        engine.submit(request(name))
        sink.done(name)
    first, second = (asked.body["cache_salt"] for asked in double.posts("/v1/completions"))
    assert first != second


@pytest.mark.parametrize(
    ("family", "sampling"),
    [
        ("openai", {"top_k": 5}),
        ("openai", {"min_tokens": 1}),
        ("openai", {"structure": Structure("json_object")}),
        ("llamacpp", {"min_tokens": 1}),
        ("tgi", {"top_k": 5}),
    ],
)
def test_submit_refuses_what_the_family_would_ignore(
    serve: Serve, family: str, sampling: dict[str, Any]
) -> None:
    engine, sink, double = serve(family=family)
    engine.submit(request("a", **sampling))
    assert sink.failed("a").code == "request_refused"
    assert double.asked == []


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        # A server that counts as it goes, with chunks of several tokens.
        (
            [
                completion("one two ") | {"usage": {"completion_tokens": 2}},
                completion("three ", reason="stop") | {"usage": {"completion_tokens": 3}},
                usage(3, 3),
            ],
            [2, 1],
        ),
        ([completion("ab", timings={}) | {"timings": {"predicted_n": 4}}, completion("", reason="stop")], [4]),
        ([completion("one two ", token_ids=[1, 2]), completion("", reason="stop", token_ids=[3])], [2, 1]),
        # One that tells at the end alone: the rest is counted there.
        ([completion("one two "), completion("three", reason="stop"), usage(3, 6)], [1, 1, 4]),
        # One that tells nothing: what the artefact's tokenizer says, here a token a byte.
        ([completion("one"), completion(" two", reason="stop"), "[DONE]"], [1, 1, 5]),
    ],
)  # fmt: skip
def test_tokens_sum_to_the_terminal_count(
    serve: Serve, events: list[Any], counts: list[int]
) -> None:
    engine, sink, _ = serve(Reply(events))
    engine.submit(request("a", max_tokens=20))
    assert sink.done("a").completion_tokens == sum(counts)
    assert [e.tokens for e in sink.of("a") if isinstance(e, Token)] == counts


def test_tokens_beyond_what_was_asked_end_the_answer(serve: Serve) -> None:
    endless = Reply([completion("w ", token_ids=[1]) for _ in range(50)], then="hang")
    engine, sink, double = serve(endless)
    engine.submit(request("a", max_tokens=3))
    assert sink.done("a") == Done("a", "length", 3, 3)
    assert double.gone.wait(30)


@pytest.mark.parametrize(
    ("told", "place"), [({"stop_reason": "yy"}, 1), ({"matched_stop": "xx"}, 0), ({}, -1)]
)
def test_done_names_the_stop_string_that_the_server_names(
    serve: Serve, told: dict[str, Any], place: int
) -> None:
    engine, sink, _ = serve(Reply([completion("hey", reason="stop", **told), usage(3, 2)]))
    engine.submit(request("a", stop=("xx", "yy")))
    assert sink.done("a").stop == place


def test_stop_string_that_the_server_shows_is_cut(serve: Serve) -> None:
    reply = Reply([completion("one E"), completion("ND two"), completion("!")], then="hang")
    engine, sink, double = serve(reply)
    engine.submit(request("a", stop=("END",)))
    assert sink.done("a").stop == 0
    assert sink.text("a") == "one "
    assert double.gone.wait(30)


def test_logprobs_come_with_their_tokens(serve: Serve) -> None:
    own = {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"a": -0.5, "z": -2.0}, None],
    }
    engine, sink, _ = serve(Reply([completion("ab", logprobs=own), completion("", reason="stop")]))
    engine.submit(request("a", logprobs=2))
    assert sink.done("a").completion_tokens == 2
    (token,) = (e for e in sink.of("a") if isinstance(e, Token))
    assert token.logprobs == (
        TokenLogprob(b"a", -0.5, (Likely(b"a", -0.5), Likely(b"z", -2.0))),
        TokenLogprob(b"b", -1.0),
    )


def test_logprobs_of_chats_are_read_as_bytes(serve: Serve) -> None:
    entry = {"token": "?", "bytes": [195], "logprob": -1.0, "top_logprobs": []}
    chunk = delta("x", reason="stop")
    chunk["choices"][0]["logprobs"] = {"content": [entry]}
    engine, sink, _ = serve(Reply([chunk]), api="chat")
    engine.submit(request("a", logprobs=0))
    sink.done("a")
    (token,) = (e for e in sink.of("a") if isinstance(e, Token))
    assert token.logprobs == (TokenLogprob(b"\xc3", -1.0),)


ERROR = {"error": {"message": UPSTREAM_WORDS, "code": 500}}


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        (Reply(status=400, body={"error": {"message": "maximum context length is 8 tokens"}}), "context_length_exceeded", "8 tokens"),
        (Reply(status=400, body={"message": "bad grammar"}), "request_refused", "bad grammar"),
        (Reply(status=422, body={"detail": "no such field"}), "request_refused", "no such field"),
        (Reply(status=400, body="<html>"), "request_refused", "HTTP 400"),
        (Reply(status=401, body=ERROR), "engine_failed", "key"),
        (Reply(status=403, body=ERROR), "engine_failed", "key"),
        (Reply(status=404, body=ERROR), "engine_failed", "no such model"),
        (Reply(status=500, body=ERROR), "engine_failed", "HTTP 500"),
        (Reply(status=503, body=ERROR), "engine_failed", "busy"),
        (Reply([{"error": {"message": "too many tokens", "code": 400}}]), "context_length_exceeded", "too many"),
        (Reply([completion("x", reason="abort")]), "engine_failed", "aborted"),
        (Reply([], body=""), "engine_failed", "ended before"),
    ],
)  # fmt: skip
def test_refusal_of_the_server_is_said_in_our_codes(
    serve: Serve, reply: Reply, code: str, says: str
) -> None:
    engine, sink, _ = serve(reply, busy_seconds=0)
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
    serve: Serve, reply: Reply, capfd: pytest.CaptureFixture[str]
) -> None:
    engine, sink, _ = serve(reply, between_tokens_seconds=0.3)
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


def test_end_without_done_mark_is_a_good_end(serve: Serve) -> None:
    engine, sink, _ = serve(Reply([completion("one", reason="stop"), usage(3, 1)], then="cut"))
    engine.submit(request("a"))
    assert sink.end("a").request_id == "a"
    assert sink.done("a") == Done("a", "stop", 3, 1)


def test_slow_first_token_fails_in_time_and_leaves_the_server(serve: Serve) -> None:
    engine, sink, double = serve(Reply([b": waiting\n\n"], then="hang"), first_token_seconds=0.2)
    engine.submit(request("a"))
    failure = sink.failed("a")
    assert (failure.code, "first token" in failure.message) == ("engine_failed", True)
    assert double.gone.wait(30)


def test_busy_server_is_asked_again(serve: Serve) -> None:
    engine, sink, double = serve()
    busy = [Reply(status=429), Reply(status=503, headers={"retry-after": "0"})]
    double.plan = lambda asked: busy.pop() if busy else answer_of(asked)
    engine.submit(request("a"))
    assert sink.done("a").completion_tokens == 8
    assert len(double.posts("/v1/completions")) == 3


def test_server_that_is_gone_fails_the_request_alone(serve: Serve) -> None:
    engine, sink, double = serve()
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
    serve: Serve, prompt: tuple[int, ...], max_tokens: int, code: str
) -> None:
    engine, sink, double = serve()
    engine.submit(request("a", prompt=prompt, max_tokens=max_tokens))
    assert sink.failed("a").code == code
    assert double.asked == []


def test_cancel_closes_the_stream(serve: Serve) -> None:
    engine, sink, double = serve(Reply([completion("one ")], then="hang"))
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.cancel("a")
    engine.cancel("nobody")
    done = sink.done("a")
    assert (done.reason, done.completion_tokens) == ("cancelled", sink.tokens("a"))
    assert double.gone.wait(30)
    assert len(sink.ends("a")) == 1


def test_cancel_tells_sglang(serve: Serve) -> None:
    engine, sink, double = serve(Reply([completion("one ")], then="hang"), family="sglang")
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.cancel("a")
    sink.done("a")
    (asked,) = eventually(lambda: double.posts("/abort_request"))
    assert asked.body == {"rid": "a"}


def test_cancel_at_once_ends_once(serve: Serve) -> None:
    engine, sink, _ = serve(Reply([completion("one ")], then="hang"))
    for n in range(50):
        engine.submit(request(f"r{n}"))
        engine.cancel(f"r{n}")
    assert engine.drain(timeout=30)
    assert all(len(sink.ends(f"r{n}")) == 1 for n in range(50))
    assert all(sink.done(f"r{n}").reason == "cancelled" for n in range(50))


def test_concurrency_bounds_what_the_server_gets(serve: Serve) -> None:
    engine, sink, double = serve(Reply([completion("one ")], then="hang"), concurrency=2)
    for name in "abc":
        engine.submit(request(name))
    eventually(lambda: len(double.posts("/v1/completions")) == 2)
    stats = engine.stats()
    assert (stats.slots, stats.running, stats.waiting) == (2, 2, 1)
    double.plan = answer_of
    sink.wait(lambda: bool(sink.of("a") and sink.of("b")))
    engine.cancel("a")
    assert sink.done("c").completion_tokens == 8


def test_events_of_a_turn_leave_in_one_batch(serve: Serve) -> None:
    stream = b"".join(
        b'data: {"choices":[{"text":"w ","finish_reason":null}]}\n\n' for _ in range(40)
    )
    engine, sink, _ = serve(Reply([stream, completion("", reason="stop"), usage(3, 40)]))
    engine.submit(request("a", max_tokens=40))
    assert sink.done("a").completion_tokens == 40
    assert len(sink.batches) < 10


def test_stats_tell_the_servers_figures(serve: Serve) -> None:
    engine, _, double = serve(Reply([], then="hang", body=""), family="vllm", poll_seconds=0.05)
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
    stats = eventually(lambda: s if (s := engine.stats()).waiting == 2 else None)
    assert (stats.running, stats.cache_tokens, stats.cached_tokens) == (1, 1600, 400)
    double.pages["/metrics"] = Reply(body="{ not metrics")
    eventually(lambda: engine.stats().cache_tokens == 0)


def test_drain_waits_and_then_refuses(serve: Serve) -> None:
    engine, sink, _ = serve()
    engine.submit(request("a"))
    assert engine.drain(timeout=30)
    sink.done("a")
    with pytest.raises(EngineClosed):
        engine.submit(request("b"))


def test_submit_same_id_twice_is_refused(serve: Serve) -> None:
    engine, _, _ = serve(Reply([], then="hang", body=""))
    engine.submit(request("a"))
    with pytest.raises(DuplicateRequest):
        engine.submit(request("a"))
    assert not engine.drain(timeout=0.01)


def test_close_cancels_what_is_left_and_frees_its_thread(serve: Serve) -> None:
    engine, sink, double = serve(Reply([completion("one ")], then="hang"))
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


def test_key_is_taken_from_the_setting(
    serve: Serve, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portal.core import env

    monkeypatch.setenv("UPSTREAM_API_KEYS", "other:no, lab:s3cr:et")
    env.env.cache_clear()
    try:
        engine, sink, double = serve(key_name="lab")
        unknown, _ = starter.engine("openai_http", double, key_name="nowhere")
        with pytest.raises(Invalid, match="nowhere"):
            unknown.load()
    finally:
        monkeypatch.undo()
        env.env.cache_clear()
    engine.submit(request("a"))
    sink.done("a")
    (asked,) = double.posts("/v1/completions")
    assert asked.headers["authorization"] == "Bearer s3cr:et"


@pytest.mark.parametrize(
    "options",
    [
        {"url": "file:///etc/passwd"},
        {"url": "http://user:secret@host"},
        {"family": "tgi", "api": "completions"},
        {"api_key": "in clear"},
        {"concurrency": 0},
    ],
)
def test_create_with_wrong_options_is_refused(starter: Starter, options: dict[str, Any]) -> None:
    double = starter.double(answer_of)
    with pytest.raises(Invalid):
        starter.engine("openai_http", double, **options)


def test_asked_paths_are_only_those_of_the_api(serve: Serve) -> None:
    engine, sink, double = serve()
    engine.submit(request("a"))
    sink.done("a")
    seen: list[Asked] = double.asked
    assert {asked.path for asked in seen} == {"/v1/completions"}


def test_recorded_answer_of_transformers_is_read_whole(serve: Serve) -> None:
    recorded = (RECORDED / "transformers_chat.sse").read_bytes()
    engine, sink, _ = serve(Reply([recorded]), api="chat")
    engine.submit(request("a", max_tokens=6))
    assert sink.done("a") == Done("a", "length", 21, 6)
    assert sink.tokens("a") == 6
    assert sink.text("a").endswith("(")


def test_recorded_completion_of_transformers_is_read_whole(serve: Serve) -> None:
    recorded = (RECORDED / "transformers_completion.sse").read_bytes()
    engine, sink, _ = serve(Reply([recorded]))
    engine.submit(request("a", max_tokens=6))
    assert sink.done("a") == Done("a", "length", 2, 6)
    assert sink.text("a").endswith("w")
