"""Calls that a caller insists on, as the official clients of each API ask for them."""

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.inference.gateway.tooled_model import (
    ARGUMENTS,
    ASK,
    FUNCTION,
    PARAMETERS,
    THOUGHT,
    TOOLS,
)
from tests.live import Deployed, LivePortal

OTHER: Any = {"type": "function", "function": {"name": "get_time", "parameters": {}}}
NAMED: Any = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize(("choice", "name"), [("required", "get_weather"), (NAMED, "get_time")])
@pytest.mark.parametrize("stream", [False, True])
def test_chat_that_must_call_does_so_without_a_word_or_thought(
    client: openai.OpenAI, tooled: Deployed, choice: Any, name: str, *, stream: bool
) -> None:
    asked: dict[str, Any] = {
        "model": tooled.model,
        "messages": ASK,
        "tools": [*TOOLS, OTHER],
        "tool_choice": choice,
        "n": 2,
    }
    if stream:
        with client.chat.completions.stream(**asked) as streamed:
            answer: Any = streamed.get_final_completion()
    else:
        answer = client.chat.completions.create(**asked)
    assert len(answer.choices) == 2
    for one in answer.choices:
        assert one.finish_reason == "tool_calls"
        assert not one.message.content
        assert not getattr(one.message, "reasoning_content", None)
        (call,) = one.message.tool_calls
        assert (call.function.name, call.function.arguments) == (name, ARGUMENTS)


def test_chat_with_a_strict_tool_is_free_to_think_and_talk(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    strict: Any = {"type": "function", "function": {**FUNCTION, "strict": True}}
    answer = client.chat.completions.create(model=tooled.model, messages=ASK, tools=[strict])
    (choice,) = answer.choices
    assert choice.message.reasoning_content == THOUGHT  # type: ignore[attr-defined]
    assert choice.message.content == "Let me look."
    assert len(choice.message.tool_calls or []) == 2
    plain = client.chat.completions.create(model=tooled.model, messages=ASK, tools=TOOLS)
    # The model is told of a strict tool as of any other.
    assert answer.usage == plain.usage


def test_responses_that_must_call_do_so_and_repeat_the_choice(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    function: Any = {"type": "function", "strict": True, **FUNCTION}
    for choice in ("required", {"type": "function", "name": "get_weather"}):
        asked: dict[str, Any] = {
            "model": tooled.model,
            "input": ASK,
            "tools": [function],
            "tool_choice": choice,
        }
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            final = stream.get_final_response()
        answers: list[Any] = [whole, final]
        for response in answers:
            (call,) = response.output
            assert call.type == "function_call"
            assert (call.name, call.arguments) == ("get_weather", ARGUMENTS)
            told = response.to_dict()
            assert told["tool_choice"] == choice
            assert told["tools"][0]["strict"] is True


def test_messages_that_must_call_do_so(claude: anthropic.Anthropic, tooled: Deployed) -> None:
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS, "strict": True}
    choices: list[Any] = [{"type": "any"}, {"type": "tool", "name": "get_weather"}]
    for choice in choices:
        asked: dict[str, Any] = {
            "model": tooled.model,
            "max_tokens": 500,
            "messages": ASK,
            "tools": [tool],
            "tool_choice": choice,
        }
        whole = claude.messages.create(**asked)
        with claude.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        answers: list[Any] = [whole, final]
        for message in answers:
            assert message.stop_reason == "tool_use"
            (block,) = message.content
            assert block.type == "tool_use"
            assert (block.name, block.input) == ("get_weather", json.loads(ARGUMENTS))


def test_strict_tool_that_nothing_can_be_held_to_is_refused_in_every_api(
    client: openai.OpenAI, claude: anthropic.Anthropic, tooled: Deployed
) -> None:
    bad: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "x"}},
    }
    function = {"name": "f", "parameters": bad, "strict": True}
    tools: list[Any] = [{"type": "function", "function": function}]
    with pytest.raises(openai.BadRequestError, match="pattern") as chat:
        client.chat.completions.create(model=tooled.model, messages=ASK, tools=tools)
    assert chat.value.code == "invalid_json_schema"
    assert chat.value.param == "tools[0].function.parameters"
    flat: Any = {"type": "function", **function}
    with pytest.raises(openai.BadRequestError) as response:
        client.responses.create(model=tooled.model, input="Hello", tools=[flat])
    assert response.value.param == "tools[0].parameters"
    tool: Any = {"name": "f", "input_schema": {"type": "string"}, "strict": True}
    with pytest.raises(anthropic.BadRequestError, match="tools.0..input_schema"):
        claude.messages.create(model=tooled.model, max_tokens=5, messages=ASK, tools=[tool])
    # Nobody insists: the call is held to an object.
    function.pop("strict")
    answer = client.chat.completions.create(
        model=tooled.model, messages=ASK, tools=tools, tool_choice="required"
    )
    assert len(answer.choices[0].message.tool_calls or []) == 1


def test_ask_a_model_without_tools_to_call_is_refused(
    live_portal: LivePortal, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError, match="not supported by the model") as refused:
        client.chat.completions.create(
            model=live_portal.fake.model, messages=ASK, tools=TOOLS, tool_choice="required"
        )
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "tools")
