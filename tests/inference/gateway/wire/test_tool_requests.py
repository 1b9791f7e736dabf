"""Tools in requests: what each API takes, and what is refused before a model is asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import Message, ToolCall
from inference.gateway.wire.chat import ChatDialect
from inference.gateway.wire.common import Dialect, ParsedRequest
from inference.gateway.wire.messages import MessagesDialect, parse_count
from inference.gateway.wire.responses import ResponsesDialect
from portal.core.errors import Invalid

CHAT, RESPONSES, MESSAGES = ChatDialect(), ResponsesDialect(), MessagesDialect()
USER = {"role": "user", "content": "q"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
BARE = {"type": "object", "properties": {}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "r"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TURNS = (
    Message("user", "q"),
    Message("assistant", "", (ToolCall("c1", "f", '{"a": 1}'),)),
    Message("tool", "r", call_id="c1"),
)
LEAST: dict[Dialect, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [USER]},
    RESPONSES: {"model": "m", "input": [USER]},
    MESSAGES: {"model": "m", "max_tokens": 5, "messages": [USER]},
}
DECLARED: dict[Dialect, Any] = {
    CHAT: lambda **f: {"type": "function", "function": {"name": "f", **f}},
    RESPONSES: lambda **f: {"type": "function", "name": "f", **f},
    MESSAGES: lambda **f: {
        "name": f.pop("name", "f"),
        "input_schema": f.pop("parameters", BARE),
        **f,
    },
}
DIALECTS = pytest.mark.parametrize("dialect", LEAST, ids=["chat", "responses", "messages"])


def parse(dialect: Dialect, **fields: Any) -> ParsedRequest:
    return dialect.parse(json.dumps({**LEAST[dialect], **fields}).encode())


def fault(dialect: Dialect, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(Invalid) as refused:
        parse(dialect, **fields)
    return refused.value.error_code, refused.value.param


def tools_of(request: ParsedRequest) -> Any:
    return json.loads(request.extras.tools) if request.extras else None


@DIALECTS
def test_parse_tools_gives_them_as_chat_completions_declare_them(dialect: Dialect) -> None:
    tool = DECLARED[dialect](description="Looks.", parameters=SCHEMA, strict=False)
    function = {"name": "f", "description": "Looks.", "parameters": SCHEMA}
    request = parse(dialect, tools=[tool])
    assert tools_of(request) == [{"type": "function", "function": function}]
    assert not request.one_call
    bare = parse(dialect, tools=[DECLARED[dialect]()])
    assert tools_of(bare) == [{"type": "function", "function": {"name": "f", "parameters": BARE}}]


@DIALECTS
def test_parse_without_tools_or_with_a_choice_of_none_has_none(dialect: Dialect) -> None:
    none: Any = {"type": "none"} if dialect is MESSAGES else "none"
    auto: Any = {"type": "auto"} if dialect is MESSAGES else "auto"
    tools = [DECLARED[dialect]()]
    assert parse(dialect, tools=[]).extras is None
    assert parse(dialect, tools=tools, tool_choice=none).extras is None
    assert parse(dialect, tools=tools, tool_choice=auto) == parse(dialect, tools=tools)


@DIALECTS
def test_parse_one_call_at_most_is_noted(dialect: Dialect) -> None:
    tools = [DECLARED[dialect]()]
    more: dict[str, Any] = (
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
        if dialect is MESSAGES
        else {"parallel_tool_calls": False}
    )
    assert parse(dialect, tools=tools, **more).one_call


@DIALECTS
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": ""}, "invalid_value"),
        ({"name": "a b"}, "invalid_value"),
        ({"name": "a" * 65}, "invalid_value"),
        ({"x": 1}, "unknown_parameter"),
        ({"description": "a\0"}, "invalid_unicode"),
        ({"description": "a" * 300_000}, "string_above_max_length"),
    ],
)
def test_parse_a_wrong_tool_names_it(dialect: Dialect, changes: dict[str, Any], code: str) -> None:
    found, param = fault(dialect, tools=[DECLARED[dialect](**changes)])
    assert found == code
    assert param is not None
    assert param.startswith("tools")


@DIALECTS
def test_parse_tools_beyond_their_bounds_is_refused(dialect: Dialect) -> None:
    many = [DECLARED[dialect](name=f"f{n}") for n in range(129)]
    assert fault(dialect, tools=many) == ("array_too_long", "tools")
    assert len(tools_of(parse(dialect, tools=many[:128]))) == 128
    assert fault(dialect, tools=[DECLARED[dialect]()] * 2) == ("invalid_value", "tools")
    deep: Any = {}
    for _ in range(70):
        deep = {"a": deep}
    assert fault(dialect, tools=[DECLARED[dialect](parameters=deep)])[0] == "body_too_deep"


def choices_of(dialect: Dialect, name: str) -> tuple[Any, Any]:
    """That any tool is called, and that the one of that name is."""
    if dialect is MESSAGES:
        return {"type": "any"}, {"type": "tool", "name": name}
    if dialect is CHAT:
        return "required", {"type": "function", "function": {"name": name}}
    return "required", {"type": "function", "name": name}


@DIALECTS
def test_parse_a_choice_that_forces_a_call_holds_the_answer_to_the_tools(dialect: Dialect) -> None:
    tools = [DECLARED[dialect](parameters=SCHEMA), DECLARED[dialect](name="g", strict=True)]
    some, one = choices_of(dialect, "g")
    any_of = parse(dialect, tools=tools, tool_choice=some)
    assert any_of.calls is not None
    assert any_of.calls.forced
    assert [(t.name, t.strict) for t in any_of.calls.tools] == [("f", False), ("g", True)]
    assert json.loads(any_of.calls.tools[0].schema) == SCHEMA
    assert not any_of.one_call
    named = parse(dialect, tools=tools, tool_choice=one)
    assert named.calls is not None
    assert named.calls.forced
    assert [tool.name for tool in named.calls.tools] == ["g"]
    assert named.one_call
    # The model is told of all of them.
    assert len(tools_of(named)) == 2


@DIALECTS
def test_parse_a_strict_tool_holds_calls_that_are_not_forced(dialect: Dialect) -> None:
    free = parse(dialect, tools=[DECLARED[dialect]()])
    strict = parse(dialect, tools=[DECLARED[dialect](strict=True)])
    assert free.calls is None
    assert strict.calls is not None
    assert not strict.calls.forced
    # What the model is told of a tool does not depend on it.
    assert tools_of(strict) == tools_of(free)


@DIALECTS
def test_parse_a_choice_of_what_is_not_there_is_refused(dialect: Dialect) -> None:
    some, one = choices_of(dialect, "other")
    tools = [DECLARED[dialect]()]
    assert fault(dialect, tools=tools, tool_choice=one) == ("invalid_value", "tool_choice")
    assert fault(dialect, tool_choice=some) == ("invalid_value", "tool_choice")
    nameless = {"type": "tool" if dialect is MESSAGES else "function"}
    assert fault(dialect, tools=tools, tool_choice=nameless)[0] == "missing_required_parameter"
    unknown: Any = {"type": "all"} if dialect is MESSAGES else "all"
    assert fault(dialect, tools=tools, tool_choice=unknown)[0] == "invalid_value"


def test_parse_a_choice_of_some_tools_is_refused_by_name() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}
    for dialect in (CHAT, RESPONSES):
        found = fault(dialect, tools=[DECLARED[dialect]()], tool_choice=choice)
        assert found == ("unsupported_parameter", "tool_choice.type")


def test_parse_least_tokens_of_an_answer_that_is_held_to_calls_is_refused() -> None:
    tools = [DECLARED[CHAT]()]
    found = fault(CHAT, tools=tools, tool_choice="required", min_tokens=3)
    assert found == ("invalid_value", "min_tokens")


def test_parse_a_conversation_with_calls_gives_the_same_in_every_api() -> None:
    assert parse(CHAT, messages=[USER, CALLED, RESULT]).messages == TURNS
    named = {**RESULT, "name": "f", "content": [{"type": "text", "text": "r"}]}
    assert parse(CHAT, messages=[USER, {**CALLED, "content": ""}, named]).messages == TURNS
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
    output = {"type": "function_call_output", "call_id": "c1", "output": "r"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert parse(RESPONSES, input=[USER, thought, call, output]).messages == TURNS
    use = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "r"}
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    turns = [
        USER,
        {"role": "assistant", "content": [thinking, use]},
        {"role": "user", "content": [result]},
    ]
    compact = (TURNS[0], Message("assistant", "", (ToolCall("c1", "f", '{"a":1}'),)), TURNS[2])
    assert parse(MESSAGES, messages=turns).messages == compact
    counted = parse_count(json.dumps({"model": "m", "messages": turns}).encode())
    assert counted.messages == compact


def test_parse_texts_around_calls_are_kept() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}
    said = {"role": "assistant", "content": "Let me see."}
    output = {"type": "function_call_output", "call_id": "c1", "output": "r"}
    message = parse(RESPONSES, input=[USER, said, call, output]).messages[1]
    assert message == Message("assistant", "Let me see.", (ToolCall("c1", "f", "{}"),))
    turns = [
        USER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f",
                                           "input": {}}, {"type": "text", "text": "So."}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1"},
                                     {"type": "text", "text": "And?"}]},
    ]  # fmt: skip
    assert parse(MESSAGES, messages=turns).messages[1:] == (
        Message("assistant", "So.", (ToolCall("c1", "f", "{}"),)),
        Message("tool", "", call_id="c1"),
        Message("user", "And?"),
    )


def called(**function: Any) -> dict[str, Any]:
    return {**CALLED, "tool_calls": [{**CALL, "function": {**CALL["function"], **function}}]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ([USER, RESULT], "invalid_value", "messages"),
        ([USER, CALLED, {**RESULT, "tool_call_id": "c2"}], "invalid_value", "messages"),
        ([USER, CALLED, {"role": "tool", "content": "r"}], "missing_required_parameter",
         "messages[2].tool_call_id"),
        ([USER, CALLED, {**RESULT, "content": None}], "missing_required_parameter",
         "messages[2].content"),
        ([{**USER, "tool_calls": [CALL]}], "invalid_value", "messages[0].tool_calls"),
        ([{**USER, "tool_call_id": "c1"}], "invalid_value", "messages[0].tool_call_id"),
        ([USER, {**CALLED, "tool_calls": [{"id": "c", "type": "custom"}]}],
         "unsupported_parameter", "messages[1].tool_calls[0].type"),
        ([USER, called(arguments="[]")], "invalid_json",
         "messages[1].tool_calls[0].function.arguments"),
        ([USER, called(arguments='{"a": 1')], "invalid_json",
         "messages[1].tool_calls[0].function.arguments"),
        ([USER, called(arguments='{"a":' * 65 + "1" + "}" * 65)], "invalid_json",
         "messages[1].tool_calls[0].function.arguments"),
        ([USER, called(arguments='{"a": "\\u0000"}')], "invalid_unicode",
         "messages[1].tool_calls[0].function.arguments"),
        ([USER, called(name="a b")], "invalid_value",
         "messages[1].tool_calls[0].function.name"),
    ],
)  # fmt: skip
def test_parse_wrong_calls_and_results_name_their_place(
    messages: list[Any], code: str, param: str
) -> None:
    assert fault(CHAT, messages=messages) == (code, param)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "function",
                        "name",
                        "id",
                        "arguments",
                        "parameters",
                        "input",
                        "content",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_parse_any_tools_and_calls_is_taken_or_refused(value: Any) -> None:
    for dialect in LEAST:
        name = "input" if dialect is RESPONSES else "messages"
        turns = [USER, {"role": "assistant", "content": value, "tool_calls": value}, value]
        for fields in ({"tools": value}, {"tools": [value]}, {"tool_choice": value}, {name: turns}):
            try:
                parse(dialect, **fields)
            except Invalid:
                continue
