"""Triton's generate extension, against a double."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from inference.engines.base import Done, Engine, Structure
from portal.core.errors import Invalid
from tests.inference.engines.doubles import Asked, Double, Plan, Reply
from tests.inference.engines.remote_support import Starter, stats_once
from tests.inference.engines.support import Sink, request

Serve = Callable[..., tuple[Engine, Sink, Double]]
PATH = "/v2/models/vllm_model/generate_stream"


def output(text: str, *, count: int = 1, reason: str | None = None) -> dict[str, Any]:
    """An event of the vLLM backend."""
    return {
        "model_name": "vllm_model",
        "text_output": text,
        "finish_reason": reason or "None",
        "num_output_tokens": count,
        "num_input_tokens": 3,
    }


def answer_of(asked: Asked) -> Reply:
    if "sampling_parameters" not in asked.body:
        return Reply([{"text_output": "w "} for _ in range(asked.body["max_tokens"])])
    count = json.loads(asked.body["sampling_parameters"])["max_tokens"]
    return Reply([*(output("w ") for _ in range(count - 1)), output("z", reason="length")])


@pytest.fixture
def serve(starter: Starter) -> Serve:
    def build(plan: Plan | Reply = answer_of, **options: Any) -> tuple[Engine, Sink, Double]:
        double = starter.double(answer_of)
        options = {"model": "vllm_model"} | options
        engine, sink = starter.engine("triton", double, **options)
        engine.load()
        double.asked.clear()
        double.plan = plan if callable(plan) else lambda asked: plan
        return engine, sink, double

    return build


def test_submit_to_vllm_sends_its_sampling_parameters(serve: Serve) -> None:
    engine, sink, double = serve()
    engine.submit(
        request("a", max_tokens=4, temperature=0.5, top_k=7, seed=3, stop=("x",), min_tokens=1)
    )
    assert sink.done("a") == Done("a", "length", 3, 4)
    assert (sink.text("a"), sink.tokens("a")) == ("w w w z", 4)
    (asked,) = double.posts(PATH)
    assert asked.body["stream"] is asked.body["exclude_input_in_output"] is True
    assert json.loads(asked.body["sampling_parameters"]) == {
        "max_tokens": 4,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 7,
        "seed": 3,
        "stop": ["x"],
        "min_tokens": 1,
    }


def test_submit_to_tensorrtllm_sends_its_inputs(serve: Serve) -> None:
    engine, sink, double = serve(backend="tensorrtllm")
    engine.submit(request("a", max_tokens=4, temperature=0, seed=3, stop=("x",)))
    # It tells neither why it ended nor how many tokens it was.
    assert sink.done("a") == Done("a", "length", 3, 4)
    (asked,) = double.posts(PATH)
    assert asked.body == {
        "text_input": asked.body["text_input"],
        "stream": True,
        "max_tokens": 4,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
        "random_seed": 3,
        "stop_words": ["x"],
    }


@pytest.mark.parametrize(
    "reply",
    [
        Reply([output("one "), output("two ")], then="cut"),
        Reply([output("one "), output("two ")]),
        Reply([output("one "), output("two "), {"error": "cuda"}]),
        Reply([output("one "), output("two "), "{not json"]),
        Reply([output("one "), output("two ")], then="hang"),
    ],
)
def test_stream_that_breaks_fails_after_what_it_showed(serve: Serve, reply: Reply) -> None:
    engine, sink, _ = serve(reply, between_tokens_seconds=0.3)
    engine.submit(request("a", max_tokens=50))
    assert sink.failed("a").code == "engine_failed"
    assert (sink.text("a"), sink.tokens("a")) == ("one two ", 2)
    assert engine.drain(timeout=10)
    assert len(sink.ends("a")) == 1


def test_cut_stream_of_tensorrtllm_is_no_end(serve: Serve) -> None:
    engine, sink, _ = serve(Reply([{"text_output": "w "}], then="cut"), backend="tensorrtllm")
    engine.submit(request("a"))
    assert sink.failed("a").code == "engine_failed"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": "prompt exceeds the maximum context length"}, "context_length_exceeded"),
        (400, {"error": "unexpected parameter"}, "request_refused"),
        (404, {"error": "unknown model"}, "engine_failed"),
        (500, {"error": "failed"}, "engine_failed"),
    ],
)
def test_refusal_of_the_server_is_said_in_our_codes(
    serve: Serve, status: int, body: Any, code: str
) -> None:
    engine, sink, _ = serve(Reply(status=status, body=body))
    engine.submit(request("a"))
    assert sink.failed("a").code == code


@pytest.mark.parametrize("backend", ["vllm", "tensorrtllm"])
@pytest.mark.parametrize("sampling", [{"logprobs": 1}, {"structure": Structure("json_object")}])
def test_submit_refuses_what_the_server_would_ignore(
    serve: Serve, backend: str, sampling: dict[str, Any]
) -> None:
    engine, sink, double = serve(backend=backend)
    engine.submit(request("a", **sampling))
    assert sink.failed("a").code == "request_refused"
    assert double.asked == []


def test_cancel_closes_the_stream(serve: Serve) -> None:
    engine, sink, double = serve(Reply([output("one ")], then="hang"))
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.cancel("a")
    assert sink.done("a") == Done("a", "cancelled", 3, 1)
    assert double.gone.wait(30)


def test_stats_count_what_waits_at_the_server(serve: Serve) -> None:
    engine, _, double = serve(Reply([], then="hang", body=""), poll_seconds=0.05)
    double.pages["/metrics"] = Reply(body='nv_inference_pending_request_count{model="m"} 1\n')
    engine.submit(request("a"))
    engine.submit(request("b"))
    stats = stats_once(engine, lambda s: s.waiting == 1)
    assert stats.running == 1


def test_create_without_model_is_refused(starter: Starter) -> None:
    with pytest.raises(Invalid, match="model"):
        starter.engine("triton", starter.double(answer_of))
