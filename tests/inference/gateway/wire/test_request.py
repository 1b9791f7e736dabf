"""What a chat completion request may hold, and how each fault is named."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from inference.engines.base import Message
from inference.gateway.wire.checks import RequestLimits
from inference.gateway.wire.common import ParsedRequest
from inference.gateway.wire.request import parse_chat_request
from inference.gateway.wire.schema import (
    UNSUPPORTED_PARAMETERS,
    IncomingRequest,
)
from portal.core.errors import Invalid

HELLO = [{"role": "user", "content": "Hello"}]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def refused(raw: bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_chat_request(raw)
    assert caught.value.error_status == 400
    return caught.value


def fault(raw: bytes) -> tuple[str, str | None]:
    error = refused(raw)
    return error.error_code, error.param


def test_parse_minimal_request_leaves_the_rest_open() -> None:
    assert parse_chat_request(body()) == ParsedRequest(
        model="m",
        messages=(Message("user", "Hello"),),
        stream=False,
        include_usage=False,
        temperature=None,
        top_p=None,
        max_tokens=None,
        stop=(),
        seed=None,
        user=None,
    )


def test_parse_full_request_keeps_every_value() -> None:
    request = parse_chat_request(
        body(
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "a"}] * 2},
                {"role": "assistant", "content": ""},
            ],
            stream=True,
            stream_options={"include_usage": True, "include_obfuscation": False},
            temperature=2,
            top_p=0.5,
            max_completion_tokens=7,
            stop=["x", "y"],
            seed=-(2**63),
            user="u",
        )
    )
    assert request == ParsedRequest(
        model="m",
        messages=(
            Message("system", "Be brief."),
            Message("system", "Be kind."),
            Message("user", "a\na"),
            Message("assistant", ""),
        ),
        stream=True,
        include_usage=True,
        temperature=2.0,
        top_p=0.5,
        max_tokens=7,
        stop=("x", "y"),
        seed=-(2**63),
        user="u",
    )


def test_parse_null_parameters_means_left_out() -> None:
    optional = [
        name for name in IncomingRequest.__struct_fields__ if name not in {"model", "messages"}
    ]
    assert parse_chat_request(body(**dict.fromkeys(optional))) == parse_chat_request(body())


def test_parse_returned_answer_is_taken_back() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert parse_chat_request(body(messages=[answer])).messages == (Message("assistant", "Hi"),)
    thought = {**answer, "reasoning_content": "Greet them.", "tool_calls": []}
    assert parse_chat_request(body(messages=[thought])).messages == (Message("assistant", "Hi"),)


def test_parse_every_parameter_of_the_official_client_is_known() -> None:
    documented = set(CompletionCreateParamsStreaming.__annotations__)
    assert documented <= set(IncomingRequest.__struct_fields__)


@pytest.mark.parametrize(
    ("given_tokens", "expected"),
    [
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 5),
        ({"max_completion_tokens": 2**31, "max_tokens": None}, 2**31),
    ],
)
def test_parse_max_tokens_takes_either_name(given_tokens: Any, expected: int) -> None:
    assert parse_chat_request(body(**given_tokens)).max_tokens == expected


def test_parse_safety_identifier_stands_for_user() -> None:
    assert parse_chat_request(body(safety_identifier="s")).user == "s"
    assert parse_chat_request(body(safety_identifier="s", user="u")).user == "u"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b" \n", "invalid_json"),
        (b"{", "invalid_json"),
        (b"model=m", "invalid_json"),
        (body() + b"x", "invalid_json"),
        (b'{"model":"\x00"}', "invalid_json"),
        (b'{"model":"\xff"}', "invalid_unicode"),
        (b'{"model":"\\ud800"}', "invalid_unicode"),
        (b'{"model":"\\\\\\udc00 and more"}', "invalid_unicode"),
        (b'{"model":"\\ud83d\\ude00\\ud83d"}', "invalid_unicode"),
        (b'{"model":"\\\\ud800', "invalid_json"),
        (b"[]", "invalid_type"),
        (b"null", "invalid_type"),
        (b"[" * 65, "body_too_deep"),
        (b'{"a":' * 100_000, "body_too_deep"),
        (b'{"model":"m","messages":[],"tools":' + b"[" * 100_000, "body_too_deep"),
        (b'{"model":"' + b"[" * 100 + b'","x":1}', "unknown_parameter"),
    ],
)
def test_parse_malformed_body_is_refused_by_kind(raw: bytes, code: str) -> None:
    assert fault(raw)[0] == code


@pytest.mark.parametrize(
    ("raw", "param", "message"),
    [
        (body(model=1), "model", "expected a string, but got an integer"),
        (body(messages="x"), "messages", "expected an array, but got a string"),
        (body(messages=["x"]), "messages[0]", "expected an object, but got a string"),
        (
            body(messages=[{"role": "user", "content": 1}]),
            "messages[0].content",
            "expected one of a string or an array, but got an integer",
        ),
        (
            body(messages=[*HELLO, {"role": "user", "content": [{"type": 2}]}]),
            "messages[1].content[0].type",
            "expected a string, but got an integer",
        ),
        (body(temperature="hot"), "temperature", "expected a number, but got a string"),
        (body(temperature=True), "temperature", "expected a number, but got a boolean"),
        (body(max_tokens=1.5), "max_tokens", "expected an integer, but got a number"),
        (body(stream="yes"), "stream", "expected a boolean, but got a string"),
        (body(stop=[1]), "stop[0]", "expected a string, but got an integer"),
        (body(stream_options=[]), "stream_options", "expected an object, but got an array"),
    ],
)
def test_parse_wrong_type_names_place_and_expectation(raw: bytes, param: str, message: str) -> None:
    error = refused(raw)
    assert (error.error_code, error.param) == ("invalid_type", param)
    assert f"Invalid type for '{param}': {message} instead." == error.message


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b'{"messages":[]}', "missing_required_parameter", "model"),
        (b'{"model":"m"}', "missing_required_parameter", "messages"),
        (body(model=""), "empty_string", "model"),
        (body(model="m" * 257), "string_above_max_length", "model"),
        (body(user="u" * 257), "string_above_max_length", "user"),
        (body(messages=[]), "empty_array", "messages"),
        (body(messages=HELLO * 2049), "array_too_long", "messages"),
        (body(messages=[{"content": "x"}]), "missing_required_parameter", "messages[0].role"),
        (body(messages=[{"role": "user"}]), "missing_required_parameter", "messages[0].content"),
        (body(messages=[{"role": "user", "content": []}]), "empty_array", "messages[0].content"),
        (
            body(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "video"}]}]),
            "invalid_value",
            "messages[0].content[0].type",
        ),
        (body(messages=[{"role": "root", "content": ""}]), "invalid_value", "messages[0].role"),
        (body(messages=[{"role": "user", "x": 1}]), "unknown_parameter", "messages[0].x"),
        (body(min_p=0.1), "unknown_parameter", "min_p"),
        (body(stream=True, stream_options={"x": 1}), "unknown_parameter", "stream_options.x"),
        (body(stream_options={"include_usage": True}), "invalid_value", "stream_options"),
        (body(temperature=2.01), "decimal_above_max_value", "temperature"),
        (body(temperature=-0.1), "decimal_below_min_value", "temperature"),
        (body(top_p=0), "decimal_below_min_value", "top_p"),
        (body(top_p=-1), "decimal_below_min_value", "top_p"),
        (body(top_p=1.1), "decimal_above_max_value", "top_p"),
        (body(max_tokens=0), "integer_below_min_value", "max_tokens"),
        (body(max_completion_tokens=-1), "integer_below_min_value", "max_completion_tokens"),
        (body(max_tokens=2**31 + 1), "integer_above_max_value", "max_tokens"),
        (body(max_tokens=10**4000), "integer_above_max_value", "max_tokens"),
        (
            body(max_tokens=0).replace(b"0}", b"1" * 9000 + b"}"),
            "invalid_value",
            "max_tokens",
        ),
        (body(temperature=0).replace(b"0}", b"1e999}"), "invalid_value", "temperature"),
        (body(max_tokens=1, max_completion_tokens=2), "invalid_value", "max_tokens"),
        (body(seed=2**63), "integer_above_max_value", "seed"),
        (body(seed=-(2**63) - 1), "integer_below_min_value", "seed"),
        (body(stop=""), "empty_string", "stop"),
        (body(stop=["a", ""]), "empty_string", "stop"),
        (body(stop=list("abcde")), "array_too_long", "stop"),
        (body(stop="s" * 1025), "string_above_max_length", "stop"),
    ],
)
def test_parse_value_that_breaks_a_rule_is_named(raw: bytes, code: str, param: str) -> None:
    error = refused(raw)
    assert (error.error_code, error.param) == (code, param)
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (body(model="a\0"), "model"),
        (body(user="\0"), "user"),
        (body(stop=["a", "\0"]), "stop"),
        (body(messages=[*HELLO, {"role": "user", "content": "a\0b"}]), "messages[1].content"),
        (
            body(messages=[{"role": "user", "content": [{"type": "text", "text": "\0"}]}]),
            "messages[0].content",
        ),
    ],
)
def test_parse_nul_in_any_text_is_refused(raw: bytes, param: str) -> None:
    error = refused(raw)
    assert (error.error_code, error.param) == ("invalid_unicode", param)
    assert "NUL" in error.message


def test_parse_text_about_nul_is_accepted() -> None:
    text = "In JSON write \\u0000 for NUL, \\ud800 for a surrogate."
    messages = [{"role": "user", "content": text}]
    assert parse_chat_request(body(messages=messages)).messages[0].content == text


REFUSED_PARAMETERS: list[tuple[str, Any]] = [
    ("functions", [{"name": "f"}]),
    ("function_call", {"name": "f"}),
    ("logit_bias", {"50256": -100}),
    ("presence_penalty", 0.5),
    ("frequency_penalty", -2),
    ("audio", {"voice": "alloy", "format": "wav"}),
    ("modalities", ["text", "audio"]),
    ("prediction", {"type": "content", "content": "x"}),
    ("reasoning_effort", "high"),
    ("verbosity", "low"),
    ("web_search_options", {}),
    ("service_tier", "priority"),
    ("store", True),
    ("metadata", {"team": "a"}),
    ("moderation", {"model": "omni-moderation-latest"}),
    ("prompt_cache_options", {"mode": "explicit"}),
    ("prompt_cache_retention", "24h"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED_PARAMETERS)
def test_parse_unsupported_parameter_is_refused_by_name(name: str, value: Any) -> None:
    error = refused(body(**{name: value}))
    assert (error.error_code, error.param) == ("unsupported_parameter", name)
    assert f"'{name}'" in error.message


def test_refused_parameters_table_covers_every_unsupported_parameter() -> None:
    assert {name for name, _ in REFUSED_PARAMETERS} == set(UNSUPPORTED_PARAMETERS.accepted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, values in UNSUPPORTED_PARAMETERS.accepted.items()
        for value in (None, *values)
    ]
    + [("presence_penalty", 0.0), ("prompt_cache_key", "k")],
)
def test_parse_value_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    assert parse_chat_request(body(**{name: value})) == parse_chat_request(body())


@pytest.mark.parametrize("role", ["function"])
def test_parse_unsupported_role_is_refused_by_name(role: str) -> None:
    message = {"role": role, "content": "x", "name": "f"}
    error = refused(body(messages=[message]))
    assert (error.error_code, error.param) == ("unsupported_parameter", "messages[0].role")
    assert f"'{role}'" in error.message


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "refusal", "refusal": "no"},
    ],
)
def test_parse_unsupported_part_is_refused_by_name(part: dict[str, Any]) -> None:
    content = [{"type": "text", "text": "look"}, part]
    error = refused(body(messages=[{"role": "user", "content": content}]))
    assert (error.error_code, error.param) == (
        "unsupported_parameter",
        "messages[0].content[1].type",
    )
    assert f"'{part['type']}'" in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Ada"),
        ("refusal", "no"),
        ("function_call", {"name": "f", "arguments": ""}),
        ("audio", {"id": "a"}),
        ("annotations", [{"type": "url_citation"}]),
    ],
)
def test_parse_unsupported_message_field_is_refused_by_name(field: str, value: Any) -> None:
    message = {"role": "assistant", "content": "x", field: value}
    assert fault(body(messages=[message])) == ("unsupported_parameter", f"messages[0].{field}")


def test_parse_obfuscation_asked_for_is_refused_by_name() -> None:
    raw = body(stream=True, stream_options={"include_obfuscation": True})
    assert fault(raw) == ("unsupported_parameter", "stream_options.include_obfuscation")


def test_parse_hostile_field_name_is_shown_short_and_printable() -> None:
    error = refused(body(**{"\0\n\u202e" + "a" * 10_000: 1}))
    assert error.error_code == "unknown_parameter"
    assert error.message.isprintable()
    assert len(error.message) < 500
    assert error.param is not None
    assert error.param.isprintable()


def test_parse_limits_are_the_callers() -> None:
    with pytest.raises(Invalid, match="at most 1 messages"):
        parse_chat_request(body(messages=HELLO * 2), limits=RequestLimits(messages=1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
FIELDS = st.sampled_from(IncomingRequest.__struct_fields__)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool"]) | JSON},
        optional={
            "content": st.text()
            | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text() | JSON}))
            | JSON,
            "name": JSON,
        },
    ),
    max_size=4,
)


def accepted_or_invalid(raw: bytes) -> ParsedRequest | None:
    """A refusal must be an Invalid that can be shown; anything else fails the test."""
    try:
        return parse_chat_request(raw)
    except Invalid as caught:
        error = caught
    assert error.error_status == 400
    assert error.message.isprintable()
    assert error.error_code != Invalid.code
    return None


@given(st.binary())
@example(b'{"model":"\\u')
def test_parse_arbitrary_bytes_never_fails_otherwise(raw: bytes) -> None:
    assert accepted_or_invalid(raw) is None


@given(JSON)
def test_parse_arbitrary_json_never_fails_otherwise(value: Any) -> None:
    assert accepted_or_invalid(json.dumps(value).encode()) is None


@given(st.dictionaries(FIELDS, JSON), MESSAGES | JSON)
def test_parse_near_request_never_fails_otherwise(fields: dict[str, Any], messages: Any) -> None:
    request = accepted_or_invalid(body(**(fields | {"messages": messages})))
    if request is not None:
        assert len(request.messages) == len(messages)
        assert not any("\0" in message.content for message in request.messages)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.booleans())
def test_parse_any_text_arrives_unchanged(text: str, escape: bool) -> None:
    messages = [{"role": "user", "content": text}]
    raw = json.dumps({"model": "m", "messages": messages}, ensure_ascii=escape).encode()
    assert parse_chat_request(raw).messages == (Message("user", text),)
