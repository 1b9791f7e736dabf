"""What few callers ask for: its ranges, and how it reaches the engine."""

import json
from typing import Any

import pytest

from inference.engines.base import Structure
from inference.gateway.structures import with_checked_schema
from inference.gateway.wire.completions import CompletionsDialect
from inference.gateway.wire.messages import MessagesDialect
from inference.gateway.wire.request import parse_chat_request
from inference.gateway.wire.responses import ResponsesDialect
from inference.payloads import Extras
from portal.core.errors import Invalid

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "m", "messages": HELLO}
COMPLETION = {"model": "m", "prompt": "Hello"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "null", "title": "A"}}}


def chat(**fields: Any) -> Extras | None:
    return parse_chat_request(json.dumps(CHAT | fields).encode()).extras


def completion(**fields: Any) -> Extras | None:
    return CompletionsDialect().parse(json.dumps(COMPLETION | fields).encode()).extras


def format_of(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1},
        {"logprobs": False, "top_logprobs": 0},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "text", "json_schema": None}},
        {"top_k": 0},
        {"top_k": -1, "min_tokens": 0},
        {"n": None, "logprobs": None, "top_k": None, "response_format": None},
    ],
)
def test_ask_for_nothing_carries_nothing(fields: dict[str, Any]) -> None:
    assert chat(**fields) is None


@pytest.mark.parametrize(
    ("fields", "extras"),
    [
        ({"n": 3}, Extras(n=3)),
        ({"logprobs": True}, Extras(logprobs=0)),
        ({"logprobs": True, "top_logprobs": 20}, Extras(logprobs=20)),
        ({"top_k": 5, "min_tokens": 2, "max_tokens": 2}, Extras(top_k=5, min_tokens=2)),
        (
            {"response_format": {"type": "json_object"}},
            Extras(structure=Structure("json_object")),
        ),
    ],
)
def test_ask_for_something_carries_it(fields: dict[str, Any], extras: Extras) -> None:
    assert chat(**fields) == extras


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": 0}, "integer_below_min_value", "n"),
        ({"n": 9}, "integer_above_max_value", "n"),
        ({"n": True}, "invalid_type", "n"),
        ({"n": "1"}, "invalid_type", "n"),
        ({"logprobs": 0}, "invalid_type", "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "integer_below_min_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"top_k": -2}, "integer_below_min_value", "top_k"),
        ({"min_tokens": 3, "max_tokens": 2}, "integer_above_max_value", "min_tokens"),
        (
            {"min_tokens": 3, "response_format": {"type": "json_object"}},
            "invalid_value",
            "min_tokens",
        ),
        (
            {"response_format": {"type": "text", "colour": 1}},
            "unknown_parameter",
            "response_format.colour",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "missing_required_parameter",
            "response_format.json_schema.name",
        ),
    ],
)
def test_ask_out_of_range_is_refused_by_name(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        chat(**fields)
    assert (caught.value.error_code, caught.value.param) == (code, param)


def test_check_a_schema_once_parsed_closes_it() -> None:
    request = parse_chat_request(json.dumps(CHAT | {"response_format": format_of(SCHEMA)}).encode())
    extras = with_checked_schema(request).extras
    assert extras is not None
    assert extras.structure is not None
    assert json.loads(extras.structure.schema) == {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "additionalProperties": False,
    }


@pytest.mark.parametrize("schema", [b'"\xff"', b'"\\ud800"', b"[" * 100 + b"]" * 100, b"null"])
def test_check_a_hostile_schema_refuses_it(schema: bytes) -> None:
    body = json.dumps(CHAT | {"response_format": format_of("here")}).encode()
    with pytest.raises(Invalid):
        with_checked_schema(parse_chat_request(body.replace(b'"here"', schema)))


def test_completions_tell_up_to_five_alternatives() -> None:
    assert completion(logprobs=0) == Extras(logprobs=0)
    assert completion(logprobs=5, n=2, top_k=3) == Extras(logprobs=5, n=2, top_k=3)
    assert completion(n=1) is None
    with pytest.raises(Invalid) as caught:
        completion(logprobs=6)
    assert caught.value.param == "logprobs"


def test_messages_take_top_k() -> None:
    body = {**CHAT, "max_tokens": 5, "top_k": 9}
    assert MessagesDialect().parse(json.dumps(body).encode()).extras == Extras(top_k=9)


def test_responses_take_a_format_and_repeat_it() -> None:
    text = {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}
    body = {"model": "m", "input": "Hello", "text": text}
    request = ResponsesDialect().parse(json.dumps(body).encode())
    assert request.extras is not None
    assert request.extras.structure is not None
    assert json.loads(request.extras.structure.schema) == SCHEMA
    echoed = json.loads(b"{" + request.echo + b"}")["text"]["format"]
    assert (echoed["name"], echoed["schema"], echoed["strict"]) == ("s", SCHEMA, True)


def test_responses_refuse_a_format_without_a_name() -> None:
    text = {"format": {"type": "json_schema", "schema": SCHEMA}}
    body = {"model": "m", "input": "Hello", "text": text}
    with pytest.raises(Invalid) as caught:
        ResponsesDialect().parse(json.dumps(body).encode())
    assert caught.value.param == "text.format.name"
