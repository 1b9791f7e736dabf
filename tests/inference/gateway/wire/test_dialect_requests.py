"""What a request of each newer API may hold, and how each fault is named."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.types import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from inference.engines.base import Message
from inference.gateway.wire import completions, messages, responses
from inference.gateway.wire.common import Dialect, ParsedRequest
from inference.gateway.wire.completions import CompletionsDialect
from inference.gateway.wire.messages import MessagesDialect, parse_count
from inference.gateway.wire.responses import ResponsesDialect
from inference.gateway.wire.schema import Unsupported
from portal.core.errors import Invalid

COMPLETIONS, RESPONSES, MESSAGES = CompletionsDialect(), ResponsesDialect(), MessagesDialect()
HELLO = [{"role": "user", "content": "Hello"}]
LEAST: dict[Any, dict[str, Any]] = {
    COMPLETIONS: {"model": "m", "prompt": "Hello"},
    RESPONSES: {"model": "m", "input": "Hello"},
    MESSAGES: {"model": "m", "messages": HELLO, "max_tokens": 5},
}
DIALECTS = pytest.mark.parametrize(
    "dialect", LEAST, ids=[type(dialect).__name__ for dialect in LEAST]
)
TEXT = st.text(st.characters(codec="utf-8"))


def body(dialect: Dialect, **fields: Any) -> bytes:
    return json.dumps(LEAST[dialect] | fields).encode()


def parsed(dialect: Dialect, **fields: Any) -> ParsedRequest:
    return dialect.parse(body(dialect, **fields))


def fault(dialect: Dialect, raw: bytes) -> tuple[str, str | None]:
    with pytest.raises(Invalid) as caught:
        dialect.parse(raw)
    assert caught.value.error_status == 400
    assert caught.value.message.isprintable()
    return caught.value.error_code, caught.value.param


@pytest.mark.parametrize(
    ("struct", "params"),
    [
        (completions.IncomingCompletion, CompletionCreateParamsStreaming),
        (responses.IncomingResponse, ResponseCreateParamsStreaming),
        (messages.IncomingMessages, MessageCreateParamsStreaming),
        (messages.IncomingCount, MessageCountTokensParams),
    ],
)
def test_parse_every_parameter_of_the_official_client_is_known(struct: Any, params: Any) -> None:
    assert set(params.__annotations__) <= set(struct.__struct_fields__)


@DIALECTS
def test_parse_minimal_request_leaves_the_rest_open(dialect: Dialect) -> None:
    request = parsed(dialect)
    role = "" if dialect is COMPLETIONS else "user"
    assert request.messages == (Message(role, "Hello"),)
    assert (request.model, request.stream, request.raw) == ("m", False, dialect is COMPLETIONS)
    assert (request.temperature, request.top_p, request.seed) == (None, None, None)
    assert (request.stop, request.user) == ((), None)
    assert request.max_tokens == (5 if dialect is MESSAGES else None)


def test_parse_full_completion_keeps_every_value() -> None:
    request = parsed(
        COMPLETIONS,
        prompt=["Once"],
        stream=True,
        stream_options={"include_usage": True},
        temperature=2,
        top_p=0.5,
        max_tokens=7,
        stop=["x", "y"],
        seed=3,
        user="u",
    )
    assert request == ParsedRequest(
        "m", (Message("", "Once"),), True, True, 2.0, 0.5, 7, ("x", "y"), 3, "u", "prompt", True
    )


def test_parse_full_response_keeps_every_value() -> None:
    said = {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}
    answer = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    request = parsed(
        RESPONSES,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {**answer, "content": [said]},
        ],
        stream=True,
        stream_options={"include_obfuscation": False},
        temperature=1,
        top_p=0.5,
        max_output_tokens=7,
        user="u",
    )
    assert request.messages == (
        Message("system", "Be brief."),
        Message("system", "Be kind."),
        Message("user", "a"),
        Message("assistant", "b"),
    )
    assert (request.stream, request.temperature, request.top_p) == (True, 1.0, 0.5)
    assert (request.max_tokens, request.user, request.param) == (7, "u", "input")


def test_parse_full_message_keeps_every_value() -> None:
    cached = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    request = parsed(
        MESSAGES,
        system=[{"type": "text", "text": "Be brief."}, cached],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}] * 2},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "c"},
            {"role": "user", "content": "d"},
        ],
        stream=True,
        temperature=1,
        top_p=0.5,
        stop_sequences=["x"],
        metadata={"user_id": "u"},
        service_tier="auto",
        tools=[],
        thinking={"type": "disabled"},
    )
    assert request.messages == (
        Message("system", "Be brief.\nBe kind."),
        Message("user", "a\na"),
        Message("assistant", "b"),
        Message("system", "c"),
        Message("user", "d"),
    )
    assert (request.stream, request.temperature, request.top_p) == (True, 1.0, 0.5)
    assert (request.max_tokens, request.stop, request.user) == (5, ("x",), "u")


@DIALECTS
def test_parse_null_parameters_means_left_out(dialect: Dialect) -> None:
    tables: dict[Any, Any] = {
        COMPLETIONS: completions.IncomingCompletion,
        RESPONSES: responses.IncomingResponse,
        MESSAGES: messages.IncomingMessages,
    }
    optional = set(tables[dialect].__struct_fields__) - set(LEAST[dialect])
    assert parsed(dialect, **dict.fromkeys(optional)) == parsed(dialect)


TABLES: list[tuple[Any, Unsupported]] = [
    (COMPLETIONS, completions.UNSUPPORTED),
    (RESPONSES, responses.UNSUPPORTED),
    (MESSAGES, messages.UNSUPPORTED),
]


@pytest.mark.parametrize(
    ("dialect", "name", "accepted"),
    [(dialect, *item) for dialect, table in TABLES for item in table.accepted.items()],
)
def test_parse_unsupported_parameter_is_named_unless_it_asks_for_nothing(
    dialect: Dialect, name: str, accepted: Sequence[Any]
) -> None:
    assert fault(dialect, body(dialect, **{name: {"x": 1}})) == ("unsupported_parameter", name)
    for value in (None, *accepted):
        assert parsed(dialect, **{name: value}) == parsed(dialect)


FAULTS: list[tuple[Any, dict[str, Any], str, str]] = [
    (COMPLETIONS, {"prompt": ""}, "empty_string", "prompt"),
    (COMPLETIONS, {"prompt": []}, "empty_array", "prompt"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "unsupported_parameter", "prompt"),
    (COMPLETIONS, {"prompt": [1, 2]}, "unsupported_parameter", "prompt"),
    (COMPLETIONS, {"prompt": [[1], [2]]}, "unsupported_parameter", "prompt"),
    (COMPLETIONS, {"prompt": [None]}, "invalid_type", "prompt[0]"),
    (COMPLETIONS, {"prompt": 7}, "invalid_type", "prompt"),
    (COMPLETIONS, {"prompt": None}, "invalid_type", "prompt"),
    (COMPLETIONS, {"prompt": "a\0"}, "invalid_unicode", "prompt"),
    (COMPLETIONS, {"messages": HELLO}, "unknown_parameter", "messages"),
    (COMPLETIONS, {"stream_options": {}}, "invalid_value", "stream_options"),
    (COMPLETIONS, {"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    (RESPONSES, {"input": []}, "empty_array", "input"),
    (RESPONSES, {"input": HELLO * 2049}, "array_too_long", "input"),
    (RESPONSES, {"input": 7}, "invalid_type", "input"),
    (RESPONSES, {"input": "a\0"}, "invalid_unicode", "input"),
    (RESPONSES, {"input": [{}]}, "missing_required_parameter", "input[0].role"),
    (RESPONSES, {"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
    (RESPONSES, {"input": [{"role": "tool", "content": ""}]}, "invalid_value", "input[0].role"),
    (RESPONSES, {"input": [{"role": "user", "x": 1}]}, "unknown_parameter", "input[0].x"),
    (
        RESPONSES,
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        "unsupported_parameter",
        "input[0].type",
    ),
    (
        RESPONSES,
        {"input": [*HELLO, {"type": "function_call", "call_id": "c", "name": "f"}]},
        "missing_required_parameter",
        "input[1].arguments",
    ),
    (RESPONSES, {"instructions": "a\0"}, "invalid_unicode", "instructions"),
    (RESPONSES, {"max_output_tokens": 0}, "integer_below_min_value", "max_output_tokens"),
    (RESPONSES, {"max_tokens": 5}, "unknown_parameter", "max_tokens"),
    (RESPONSES, {"stream_options": {}}, "invalid_value", "stream_options"),
    (
        RESPONSES,
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "unsupported_parameter",
        "stream_options.include_obfuscation",
    ),
    (RESPONSES, {"metadata": {"a": 1}}, "invalid_type", "metadata[...]"),
    (RESPONSES, {"metadata": {"k" * 65: ""}}, "string_above_max_length", "metadata"),
    (RESPONSES, {"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata"),
    (
        RESPONSES,
        {"metadata": {str(n): "" for n in range(17)}},
        "object_above_max_properties",
        "metadata",
    ),
    (MESSAGES, {"messages": []}, "empty_array", "messages"),
    (MESSAGES, {"messages": HELLO * 2049}, "array_too_long", "messages"),
    (MESSAGES, {"messages": [{"role": "x", "content": ""}]}, "invalid_value", "messages[0].role"),
    (
        MESSAGES,
        {"messages": [{"role": "user", "content": []}]},
        "empty_array",
        "messages[0].content",
    ),
    (
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "missing_required_parameter",
        "messages[0].content[0].text",
    ),
    (
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
        "invalid_value",
        "messages",
    ),
    (
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
        "unsupported_parameter",
        "messages[0].content[0].type",
    ),
    (
        MESSAGES,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "", "citations": [1]}]}
            ]
        },
        "unsupported_parameter",
        "messages[0].content[0].citations",
    ),
    (
        MESSAGES,
        {"messages": [*HELLO, {"role": "assistant", "content": "a"}]},
        "unsupported_parameter",
        "messages[1].role",
    ),
    (MESSAGES, {"system": "a\0"}, "invalid_unicode", "system"),
    (MESSAGES, {"max_tokens": None}, "invalid_type", "max_tokens"),
    (MESSAGES, {"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    (MESSAGES, {"temperature": 1.5}, "decimal_above_max_value", "temperature"),
    (MESSAGES, {"stop_sequences": ["a"] * 5}, "array_too_long", "stop_sequences"),
    (MESSAGES, {"stop_sequences": [""]}, "empty_string", "stop_sequences"),
    (MESSAGES, {"metadata": {"user_id": "u" * 257}}, "string_above_max_length", "metadata.user_id"),
    (MESSAGES, {"metadata": {"x": 1}}, "unknown_parameter", "metadata.x"),
    (MESSAGES, {"stop": ["a"]}, "unknown_parameter", "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "fields", "code", "param"), FAULTS)
def test_parse_wrong_value_names_code_and_place(
    dialect: Dialect, fields: dict[str, Any], code: str, param: str
) -> None:
    assert fault(dialect, body(dialect, **fields)) == (code, param)


@DIALECTS
def test_parse_without_what_is_required_names_it(dialect: Dialect) -> None:
    for name in LEAST[dialect]:
        rest = {key: value for key, value in LEAST[dialect].items() if key != name}
        told = fault(dialect, json.dumps(rest).encode())
        assert told == ("missing_required_parameter", name)


HOSTILE = [
    (b"", "invalid_json"),
    (b"[]", "invalid_type"),
    (b"null", "invalid_type"),
    (b'{"model": "\xff"}', "invalid_unicode"),
    (b'{"model": "\\ud800"}', "invalid_unicode"),
    (b'{"metadata": ' + b'{"a":' * 90_000 + b"1" + b"}" * 90_001, "body_too_deep"),
    (b'{"tools": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", "body_too_deep"),
    (b'{"temperature": NaN}', "invalid_json"),
    (b'{"temperature": 1e999}', "invalid_value"),
    (b'{"max_tokens": ' + b"9" * 5000 + b"}", None),
]


@DIALECTS
@pytest.mark.parametrize(("raw", "code"), HOSTILE)
def test_parse_hostile_body_is_refused(dialect: Dialect, raw: bytes, code: str | None) -> None:
    told, _ = fault(dialect, raw)
    assert code is None or told == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "input_text", "output_text", "image"]) | JSON},
        optional={"text": TEXT | JSON, "annotations": JSON, "cache_control": JSON, "x": JSON},
    ),
    max_size=3,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "developer"]) | JSON},
        optional={"content": TEXT | PARTS | JSON, "type": st.just("message") | JSON, "id": JSON},
    ),
    max_size=4,
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": TEXT | st.lists(TEXT | st.integers(), max_size=2) | JSON,
        "input": TEXT | TURNS | JSON,
        "messages": TURNS | JSON,
        "system": TEXT | PARTS | JSON,
        "instructions": TEXT | JSON,
        "metadata": st.dictionaries(TEXT, TEXT) | JSON,
        "stop": st.lists(TEXT) | JSON,
        "stop_sequences": st.lists(TEXT) | JSON,
        "temperature": st.floats() | JSON,
        "top_p": st.floats() | JSON,
        "max_tokens": st.integers() | JSON,
        "max_output_tokens": st.integers() | JSON,
        "stream": st.booleans() | JSON,
        "stream_options": st.dictionaries(st.just("include_usage"), JSON) | JSON,
        "tools": JSON,
        "thinking": JSON,
        "text": JSON,
        "n": JSON,
        "user": TEXT | JSON,
    },
)


def accepted_or_invalid(dialect: Dialect, raw: bytes) -> ParsedRequest | None:
    """A refusal must be an Invalid that can be shown; anything else fails the test."""
    try:
        return dialect.parse(raw)
    except Invalid as caught:
        error = caught
    assert error.error_status == 400
    assert error.message.isprintable()
    assert error.error_code != Invalid.code
    return None


@DIALECTS
@given(raw=st.binary())
@example(raw=b'{"model":"\\u')
def test_parse_arbitrary_bytes_never_fails_otherwise(dialect: Dialect, raw: bytes) -> None:
    assert accepted_or_invalid(dialect, raw) is None


@DIALECTS
@given(fields=ARGUMENTS)
def test_parse_near_request_never_fails_otherwise(dialect: Dialect, fields: dict[str, Any]) -> None:
    known = {"model": "m", **LEAST[dialect]}
    kept = {name: value for name, value in fields.items() if name in known or len(fields) < 3}
    request = accepted_or_invalid(dialect, json.dumps({**known, **kept}).encode())
    if request is not None:
        assert request.messages
        assert not any("\0" in message.content for message in request.messages)
        json.loads(b"{" + request.echo + b"}")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), st.booleans())
def test_parse_any_text_arrives_unchanged(text: str, escape: bool) -> None:
    turns = [{"role": "user", "content": text}]
    for dialect, name, value in (
        (COMPLETIONS, "prompt", text),
        (RESPONSES, "input", text),
        (RESPONSES, "input", turns),
        (MESSAGES, "messages", turns),
    ):
        raw = json.dumps({**LEAST[dialect], name: value}, ensure_ascii=escape).encode()
        assert [m.content for m in dialect.parse(raw).messages] == [text]


def test_parse_count_takes_the_conversation_alone() -> None:
    asked = {"model": "m", "messages": HELLO, "system": "Be brief."}
    request = parse_count(json.dumps(asked).encode())
    assert request.messages == (Message("system", "Be brief."), Message("user", "Hello"))
    for extra, code in (
        ({"max_tokens": 5}, "unknown_parameter"),
        ({"tools": [1]}, "invalid_type"),
        ({"speed": "fast"}, None),
    ):
        with pytest.raises(Invalid) as caught:
            parse_count(json.dumps(asked | extra).encode())
        assert caught.value.error_code == (code or "unsupported_parameter")
