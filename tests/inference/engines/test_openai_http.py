"""The adapter to servers with OpenAI's API, against doubles that behave well and badly."""

import json
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import (
    Done,
    GenerationRequest,
    Likely,
    Message,
    Sampling,
    Structure,
    Token,
    TokenLogprob,
)
from inference.engines.structural_tags import structural_tag
from portal.core.errors import Invalid
from tests.inference.engines.call_forms import held
from tests.inference.engines.doubles import (
    Asked,
    Reply,
    answer_of,
    completion,
    delta,
    usage,
    words,
)
from tests.inference.engines.remote_support import Serve, Starter
from tests.inference.engines.support import request

RECORDED = Path(__file__).parent / "recorded"


def test_submit_sends_token_ids_and_ends_with_the_servers_usage(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(words(5))
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


def test_submit_in_chat_sends_messages_and_tools(serve_openai: Serve) -> None:
    reply = Reply([delta("", role="assistant"), delta("hi"), delta(reason="stop"), usage(9, 2)])
    engine, sink, double = serve_openai(reply, api="chat", model="named")
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


def test_submit_bare_prompt_in_chat_is_refused(serve_openai: Serve) -> None:
    engine, sink, _ = serve_openai(api="chat")
    engine.submit(GenerationRequest("a", (5,), (Message("", "once upon"),), Sampling(4)))
    assert sink.failed("a").code == "request_refused"


def test_submit_in_chat_writes_reasoning_and_calls_as_models_do(serve_openai: Serve) -> None:
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
    engine, sink, _ = serve_openai(reply, api="chat")
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


FORCED = Structure("calls", calls=held("hermes", forced=True, one=True))
FREE = Structure("calls", calls=held("hermes", forced=False))


@pytest.mark.parametrize(
    ("options", "sampling", "sent"),
    [
        (
            {"family": "vllm"},
            {"structure": FORCED},
            {"response_format": structural_tag(held("hermes", forced=True, one=True))},
        ),
        (
            {"family": "openai", "api": "chat"},
            {"structure": FORCED},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        ({"family": "vllm"}, {"top_k": 9}, {"top_k": 9, "cache_salt": "tenant"}),
        ({"family": "vllm"}, {"min_tokens": 2}, {"min_tokens": 2}),
        (
            {"family": "vllm"},
            {"structure": Structure("json_schema", SCHEMA)},
            {"response_format": STRICT},
        ),
        (
            {"family": "vllm"},
            {"structure": Structure("json_object")},
            {"response_format": {"type": "json_object"}},
        ),
        ({"family": "sglang"}, {"top_k": 9}, {"top_k": 9, "extra_key": "tenant", "rid": "a"}),
        (
            {"family": "sglang"},
            {"structure": Structure("json_schema", SCHEMA)},
            {"json_schema": SCHEMA},
        ),
        (
            {"family": "sglang"},
            {"structure": Structure("json_object")},
            {"json_schema": '{"type":"object"}'},
        ),
        (
            {"family": "llamacpp"},
            {"top_p": 0},
            {"temperature": 0, "top_p": 1.0, "top_k": 0, "cache_prompt": False},
        ),
        (
            {"family": "llamacpp", "share_cache": True},
            {"top_k": 3},
            {"cache_prompt": True, "top_k": 3},
        ),
        (
            {"family": "llamacpp"},
            {"structure": Structure("json_schema", SCHEMA)},
            {"json_schema": json.loads(SCHEMA)},
        ),
        (
            {"family": "tgi"},
            {"structure": Structure("json_schema", SCHEMA)},
            {"response_format": {"type": "json_object", "value": json.loads(SCHEMA)}},
        ),
        (
            {"api": "chat"},
            {"structure": Structure("json_object")},
            {"response_format": {"type": "json_object"}},
        ),
        ({"api": "chat"}, {"logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({}, {"logprobs": 2, "stop": ("x",)}, {"logprobs": 2, "stop": ["x"]}),
    ],
)
def test_submit_asks_each_family_in_its_own_words(
    serve_openai: Serve, options: dict[str, Any], sampling: dict[str, Any], sent: dict[str, Any]
) -> None:
    engine, sink, double = serve_openai(words(1), **options)
    made = Sampling(**{"max_tokens": 1} | sampling)
    message = (Message("user", "hey"),)
    engine.submit(GenerationRequest("a", (5,), message, made, cache_scope="tenant"))
    sink.end("a")
    (asked,) = (a for a in double.asked if "completions" in a.path)
    assert {name: asked.body[name] for name in sent} == sent


def test_submit_without_scope_shares_no_cache(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai(family="vllm")
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
        ("openai", {"structure": FORCED}),
        ("sglang", {"structure": FREE}),
        ("llamacpp", {"min_tokens": 1}),
        ("tgi", {"top_k": 5}),
    ],
)
def test_submit_refuses_what_the_family_would_ignore(
    serve_openai: Serve, family: str, sampling: dict[str, Any]
) -> None:
    engine, sink, double = serve_openai(family=family)
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
        (
            [
                completion("ab", timings={}) | {"timings": {"predicted_n": 4}},
                completion("", reason="stop"),
            ],
            [4],
        ),
        (
            [
                completion("one two ", token_ids=[1, 2]),
                completion("", reason="stop", token_ids=[3]),
            ],
            [2, 1],
        ),
        # One that tells at the end alone: the rest is counted there.
        ([completion("one two "), completion("three", reason="stop"), usage(3, 6)], [1, 1, 4]),
        # One that tells nothing: what the artefact's tokenizer says, here a token a byte.
        ([completion("one"), completion(" two", reason="stop"), "[DONE]"], [1, 1, 5]),
    ],
)
def test_tokens_sum_to_the_terminal_count(
    serve_openai: Serve, events: list[Any], counts: list[int]
) -> None:
    engine, sink, _ = serve_openai(Reply(events))
    engine.submit(request("a", max_tokens=20))
    assert sink.done("a").completion_tokens == sum(counts)
    assert [e.tokens for e in sink.of("a") if isinstance(e, Token)] == counts


def test_tokens_beyond_what_was_asked_end_the_answer(serve_openai: Serve) -> None:
    endless = Reply([completion("w ", token_ids=[1]) for _ in range(50)], then="hang")
    engine, sink, double = serve_openai(endless)
    engine.submit(request("a", max_tokens=3))
    assert sink.done("a") == Done("a", "length", 3, 3)
    assert double.gone.wait(30)


@pytest.mark.parametrize(
    ("told", "place"), [({"stop_reason": "yy"}, 1), ({"matched_stop": "xx"}, 0), ({}, -1)]
)
def test_done_names_the_stop_string_that_the_server_names(
    serve_openai: Serve, told: dict[str, Any], place: int
) -> None:
    engine, sink, _ = serve_openai(Reply([completion("hey", reason="stop", **told), usage(3, 2)]))
    engine.submit(request("a", stop=("xx", "yy")))
    assert sink.done("a").stop == place


def test_stop_string_that_the_server_shows_is_cut(serve_openai: Serve) -> None:
    reply = Reply([completion("one E"), completion("ND two"), completion("!")], then="hang")
    engine, sink, double = serve_openai(reply)
    engine.submit(request("a", stop=("END",)))
    assert sink.done("a").stop == 0
    assert sink.text("a") == "one "
    assert double.gone.wait(30)


def test_logprobs_come_with_their_tokens(serve_openai: Serve) -> None:
    own = {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"a": -0.5, "z": -2.0}, None],
    }
    engine, sink, _ = serve_openai(
        Reply([completion("ab", logprobs=own), completion("", reason="stop")])
    )
    engine.submit(request("a", logprobs=2))
    assert sink.done("a").completion_tokens == 2
    (token,) = (e for e in sink.of("a") if isinstance(e, Token))
    assert token.logprobs == (
        TokenLogprob(b"a", -0.5, (Likely(b"a", -0.5), Likely(b"z", -2.0))),
        TokenLogprob(b"b", -1.0),
    )


def test_logprobs_of_chats_are_read_as_bytes(serve_openai: Serve) -> None:
    entry = {"token": "?", "bytes": [195], "logprob": -1.0, "top_logprobs": []}
    chunk = delta("x", reason="stop")
    chunk["choices"][0]["logprobs"] = {"content": [entry]}
    engine, sink, _ = serve_openai(Reply([chunk]), api="chat")
    engine.submit(request("a", logprobs=0))
    sink.done("a")
    (token,) = (e for e in sink.of("a") if isinstance(e, Token))
    assert token.logprobs == (TokenLogprob(b"\xc3", -1.0),)


def test_key_is_taken_from_the_setting(
    serve_openai: Serve, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portal.core import env

    monkeypatch.setenv("UPSTREAM_API_KEYS", "other:no, lab:s3cr:et")
    env.env.cache_clear()
    try:
        engine, sink, double = serve_openai(key_name="lab")
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


def test_asked_paths_are_only_those_of_the_api(serve_openai: Serve) -> None:
    engine, sink, double = serve_openai()
    engine.submit(request("a"))
    sink.done("a")
    seen: list[Asked] = double.asked
    assert {asked.path for asked in seen} == {"/v1/completions"}


def test_recorded_answer_of_transformers_is_read_whole(serve_openai: Serve) -> None:
    recorded = (RECORDED / "transformers_chat.sse").read_bytes()
    engine, sink, _ = serve_openai(Reply([recorded]), api="chat")
    engine.submit(request("a", max_tokens=6))
    assert sink.done("a") == Done("a", "length", 21, 6)
    assert sink.tokens("a") == 6
    assert sink.text("a").endswith("(")


def test_recorded_completion_of_transformers_is_read_whole(serve_openai: Serve) -> None:
    recorded = (RECORDED / "transformers_completion.sse").read_bytes()
    engine, sink, _ = serve_openai(Reply([recorded]))
    engine.submit(request("a", max_tokens=6))
    assert sink.done("a") == Done("a", "length", 2, 6)
    assert sink.text("a").endswith("w")


@pytest.mark.parametrize(("api", "name"), [("completions", "completion"), ("chat", "chat")])
def test_recorded_answer_of_llamacpp_is_read_whole(
    serve_openai: Serve, api: str, name: str
) -> None:
    recorded = (RECORDED / f"llamacpp_{name}.sse").read_bytes()
    engine, sink, _ = serve_openai(Reply([recorded]), family="llamacpp", api=api)
    engine.submit(request("a", max_tokens=6, logprobs=1))
    assert sink.done("a") == Done("a", "length", 41, 6)
    assert sink.text("a") == "One day, in the bustling"
    told = [entry for event in sink.of("a") for entry in getattr(event, "logprobs", ())]
    assert [entry.token for entry in told] == [b"One", b" day", b",", b" in", b" the", b" bustling"]
    assert told[0].logprob == pytest.approx(-1.3885, abs=1e-4)
