"""TGI by its own protocol, against a double."""

from collections.abc import Callable
from typing import Any

import pytest

from inference.engines.base import Done, Engine, Likely, Structure, Token, TokenLogprob
from portal.core.errors import Unavailable
from tests.inference.engines.doubles import Asked, Double, Plan, Reply
from tests.inference.engines.remote_support import Starter
from tests.inference.engines.support import Sink, request

Serve = Callable[..., tuple[Engine, Sink, Double]]


def token(text: str, *, end: str | None = None, count: int = 0, **more: Any) -> dict[str, Any]:
    """An event of ``generate_stream``."""
    details = (
        None
        if end is None
        else {"finish_reason": end, "generated_tokens": count, "input_length": 3}
    )
    one = {"id": 1, "text": text, "logprob": -0.5, "special": False} | more.pop("token", {})
    return {"index": 0, "token": one, "generated_text": None, "details": details, **more}


def answer_of(asked: Asked) -> Reply:
    count = int(asked.body["parameters"]["max_new_tokens"])
    last = token("z", end="length", count=count)
    return Reply([*(token(f"t{n} ") for n in range(count - 1)), last])


@pytest.fixture
def serve(starter: Starter) -> Serve:
    def build(plan: Plan | Reply = answer_of, **options: Any) -> tuple[Engine, Sink, Double]:
        double = starter.double(answer_of)
        engine, sink = starter.engine("tgi", double, **options)
        engine.load()
        double.asked.clear()
        double.plan = plan if callable(plan) else lambda asked: plan
        return engine, sink, double

    return build


def test_submit_streams_tokens_as_the_server_counts_them(serve: Serve) -> None:
    engine, sink, double = serve()
    engine.submit(
        request("a", max_tokens=4, temperature=0.5, top_p=0.9, top_k=7, seed=3, stop=("x",))
    )
    assert sink.done("a") == Done("a", "length", 3, 4)
    assert sink.text("a") == "t0 t1 t2 z"
    (asked,) = double.asked
    parameters = {k: v for k, v in asked.body["parameters"].items() if v is not None}
    assert asked.body["stream"] is True
    assert parameters == {
        "details": True,
        "do_sample": True,
        "max_new_tokens": 4,
        "return_full_text": False,
        "seed": 3,
        "stop": ["x"],
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
    }
    # No token of someone's that lies on this machine goes along.
    assert not asked.headers["authorization"]


def test_submit_takes_a_schema_as_grammar(serve: Serve) -> None:
    engine, sink, double = serve()
    engine.submit(request("a", structure=Structure("json_object"), temperature=0))
    sink.done("a")
    parameters = double.asked[0].body["parameters"]
    assert parameters["grammar"] == {"type": "json", "value": {"type": "object"}}
    assert parameters["do_sample"] is False


def test_special_tokens_count_without_text(serve: Serve) -> None:
    end = token("</s>", end="eos_token", count=2, token={"special": True})
    engine, sink, _ = serve(Reply([token("hi"), end]))
    engine.submit(request("a"))
    assert sink.done("a") == Done("a", "stop", 3, 2)
    assert (sink.text("a"), sink.tokens("a")) == ("hi", 2)


def test_stop_string_that_the_server_leaves_in_is_cut(serve: Serve) -> None:
    events = [token("one "), token("EN"), token("D", end="stop_sequence", count=3)]
    engine, sink, _ = serve(Reply(events))
    engine.submit(request("a", stop=("END",)))
    assert sink.done("a") == Done("a", "stop", 3, 3, 0)
    assert sink.text("a") == "one "


def test_logprobs_come_with_their_tokens(serve: Serve) -> None:
    top = [{"id": 2, "text": "b", "logprob": -0.9, "special": False}]
    engine, sink, _ = serve(Reply([token("a", end="length", count=1, top_tokens=top)]))
    engine.submit(request("a", logprobs=1))
    sink.done("a")
    (event,) = (e for e in sink.of("a") if isinstance(e, Token))
    assert event.logprobs == (TokenLogprob(b"a", -0.5, (Likely(b"b", -0.9),)),)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply([token("one "), token("two ")], then="cut"), "engine_failed"),
        (Reply([token("one "), token("two ")]), "engine_failed"),
        (Reply([token("one "), token("two "), "{not json"]), "engine_failed"),
        (Reply([token("one "), token("two "), {"no": "token"}]), "engine_failed"),
        (
            Reply([token("one "), token("two "), {"error": "x", "error_type": "generation"}]),
            "engine_failed",
        ),
        (Reply([token("one "), token("two ")], then="hang"), "engine_failed"),
    ],
)
def test_stream_that_breaks_fails_after_what_it_showed(
    serve: Serve, reply: Reply, code: str
) -> None:
    engine, sink, _ = serve(reply, between_tokens_seconds=0.3)
    engine.submit(request("a", max_tokens=50))
    assert sink.failed("a").code == code
    assert (sink.text("a"), sink.tokens("a")) == ("one two ", 2)
    assert engine.drain(timeout=10)
    assert len(sink.ends("a")) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(status=401), "engine_failed"),
        (Reply(status=500), "engine_failed"),
        (Reply(status=429), "engine_failed"),
        (Reply(status=404), "engine_failed"),
        (
            Reply(
                [
                    {
                        "error": "`inputs` tokens + `max_new_tokens` must be <= 9",
                        "error_type": "validation",
                    }
                ]
            ),
            "context_length_exceeded",
        ),
        (Reply([{"error": "`seed` is wrong", "error_type": "validation"}]), "request_refused"),
    ],
)
def test_refusal_of_the_server_is_said_in_our_codes(serve: Serve, reply: Reply, code: str) -> None:
    engine, sink, _ = serve(reply, busy_seconds=0)
    engine.submit(request("a"))
    assert sink.failed("a").code == code
    assert engine.stats().failure is None


def test_submit_refuses_what_the_server_would_ignore(serve: Serve) -> None:
    engine, sink, double = serve()
    engine.submit(request("a", min_tokens=2))
    assert sink.failed("a").code == "request_refused"
    assert double.asked == []


def test_cancel_closes_the_stream(serve: Serve) -> None:
    engine, sink, double = serve(Reply([token("one ")], then="hang"))
    engine.submit(request("a"))
    sink.wait(lambda: bool(sink.of("a")))
    engine.cancel("a")
    assert sink.done("a") == Done("a", "cancelled", 3, 1)
    assert double.gone.wait(30)


def test_server_that_is_gone_fails_the_request_alone(serve: Serve) -> None:
    engine, sink, double = serve()
    double.close()
    engine.submit(request("a"))
    assert sink.failed("a").code == "engine_failed"
    assert engine.stats().failure is None


def test_load_of_a_server_that_refuses_says_why(starter: Starter) -> None:
    engine, _ = starter.engine("tgi", starter.double(lambda asked: Reply(status=403)))
    with pytest.raises(Unavailable, match="key"):
        engine.load()
