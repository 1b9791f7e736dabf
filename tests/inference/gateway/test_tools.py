"""Tools and reasoning on ``/v1``, as the official clients of each API meet them."""

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.inference.gateway.tooled_model import (
    ANSWERS,
    ASK,
    CALL,
    FUNCTION,
    PARAMETERS,
    SAID,
    THOUGHT,
    TOOLS,
    WHOLE,
)
from tests.live import Deployed, LivePortal
from tests.waiting import eventually


def test_chat_with_tools_calls_them_and_goes_on_with_their_results(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    chat = client.chat.completions
    first = chat.create(model=tooled.model, messages=ASK, tools=TOOLS)
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert choice.message.reasoning_content == THOUGHT  # type: ignore[attr-defined]
    calls = choice.message.tool_calls or []
    assert len({call.id for call in calls}) == 2
    for call in calls:
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
    usage = first.usage
    assert usage is not None
    assert usage.completion_tokens == WHOLE
    assert usage.completion_tokens_details is not None
    # The model has a token a byte.
    assert usage.completion_tokens_details.reasoning_tokens == len(THOUGHT)
    results: list[Any] = [
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"} for call in calls
    ]
    # The message goes back as it came, reasoning included.
    messages = [*ASK, choice.message, *results]
    second = chat.create(model=tooled.model, messages=messages, tools=TOOLS)
    assert second.choices[0].message.content == SAID
    assert second.choices[0].message.tool_calls is None
    assert second.choices[0].finish_reason == "stop"


def test_chat_streamed_gives_what_it_gives_whole(client: openai.OpenAI, tooled: Deployed) -> None:
    chat = client.chat.completions
    whole = chat.create(model=tooled.model, messages=ASK, tools=TOOLS)
    chunks = list(
        chat.create(
            model=tooled.model,
            messages=ASK,
            tools=TOOLS,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    message = whole.choices[0].message
    assert "".join(d.content or "" for d in deltas) == message.content
    assert "".join(getattr(d, "reasoning_content", "") for d in deltas) == THOUGHT
    parts = [call for d in deltas for call in d.tool_calls or []]
    heads = [part for part in parts if part.id]
    assert [(p.index, p.function.name) for p in heads if p.function] == [
        (0, "get_weather"),
        (1, "get_weather"),
    ]
    assert len(parts) > 4
    for index, call in enumerate(message.tool_calls or []):
        assert call.type == "function"
        own = [p.function.arguments or "" for p in parts if p.index == index and p.function]
        assert "".join(own) == call.function.arguments
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "tool_calls"
    assert set(reasons[:-1]) == {None}
    assert chunks[-1].usage == whole.usage


def test_chat_without_parallel_calls_gives_one(client: openai.OpenAI, tooled: Deployed) -> None:
    answer = client.chat.completions.create(
        model=tooled.model, messages=ASK, tools=TOOLS, parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls or []) == 1


def test_chat_with_a_choice_of_none_is_not_told_of_tools(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    chat = client.chat.completions
    none = chat.create(model=tooled.model, messages=ASK, tools=TOOLS, tool_choice="none")
    plain = chat.create(model=tooled.model, messages=ASK)
    assert none.usage == plain.usage
    assert none.choices[0].message.tool_calls is None
    assert CALL in (none.choices[0].message.content or "")
    assert none.choices[0].finish_reason == "stop"


def test_chat_a_broken_call_stays_text(client: openai.OpenAI, tooled: Deployed) -> None:
    ask: list[Any] = [{"role": "user", "content": "broken"}]
    answer = client.chat.completions.create(model=tooled.model, messages=ask, tools=TOOLS)
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert choice.message.content == ANSWERS["broken"].removeprefix("Hm.</think>")


def test_chat_that_is_cut_off_says_so(client: openai.OpenAI, tooled: Deployed) -> None:
    cut = ANSWERS["the weather"].index("Paris")
    answer = client.chat.completions.create(
        model=tooled.model, messages=ASK, tools=TOOLS, max_tokens=cut
    )
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"functions": [FUNCTION], "tools": []}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)
def test_chat_with_what_is_not_supported_is_refused_by_name(
    client: openai.OpenAI, tooled: Deployed, more: dict[str, Any], param: str
) -> None:
    body = {"model": tooled.model, "messages": ASK, "tools": TOOLS, **more}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**body)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)


def test_ask_a_model_without_tools_is_refused_in_every_api(
    live_portal: LivePortal, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    model = live_portal.fake.model
    with pytest.raises(openai.BadRequestError, match="not supported by the model") as chat:
        client.chat.completions.create(model=model, messages=ASK, tools=TOOLS)
    assert (chat.value.code, chat.value.param) == ("unsupported_parameter", "tools")
    function: Any = {"type": "function", "strict": False, **FUNCTION}
    with pytest.raises(openai.BadRequestError, match="not supported by the model"):
        client.responses.create(model=model, input="Hello", tools=[function])
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS}
    with pytest.raises(anthropic.BadRequestError, match="not supported by the model"):
        claude.messages.create(model=model, max_tokens=5, messages=ASK, tools=[tool])
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    past: list[Any] = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    with pytest.raises(openai.BadRequestError, match="not supported by the model") as old:
        client.chat.completions.create(model=model, messages=past)
    assert old.value.param == "messages"


def test_responses_with_functions_whole_and_streamed_and_with_their_outputs(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    function: Any = {"type": "function", "strict": False, **FUNCTION}
    asked: dict[str, Any] = {"model": tooled.model, "input": ASK, "tools": [function]}
    whole = client.responses.create(**asked)
    kinds = [item.type for item in whole.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    assert whole.output_text == "Let me look."
    assert whole.output[0].content[0].text == THOUGHT
    assert whole.usage is not None
    assert whole.usage.output_tokens_details.reasoning_tokens == len(THOUGHT)
    assert [tool.name for tool in whole.tools] == ["get_weather"]
    with client.responses.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [e.sequence_number for e in events] == list(range(len(events)))

    def shape(response: Any) -> list[Any]:
        return [(i.type, getattr(i, "arguments", None), i.status) for i in response.output]

    assert shape(final) == shape(whole)
    assert final.output_text == whole.output_text
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 2
    calls = [item for item in whole.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Paris"}] * 2
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
        for call in calls
    ]
    past: Any = [*ASK, *whole.output, *outputs]
    second = client.responses.create(model=tooled.model, input=past, tools=[function])
    assert second.output_text == SAID
    assert [item.type for item in second.output] == ["reasoning", "message"]


def test_messages_with_tools_whole_and_streamed_and_with_their_results(
    claude: anthropic.Anthropic, tooled: Deployed
) -> None:
    tool = {"name": "get_weather", "description": "Looks up.", "input_schema": PARAMETERS}
    asked: dict[str, Any] = {
        "model": tooled.model,
        "max_tokens": 1000,
        "messages": ASK,
        "tools": [tool],
    }
    plain = claude.messages.create(**asked)
    assert [block.type for block in plain.content] == ["text", "tool_use", "tool_use"]
    assert plain.stop_reason == "tool_use"
    thinking: Any = {"type": "adaptive"}
    whole = claude.messages.create(**asked, thinking=thinking)
    assert [b.type for b in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert whole.content[0].thinking == THOUGHT
    with claude.messages.stream(**asked, thinking=thinking) as stream:
        events = list(stream)
        final = stream.get_final_message()

    def shape(message: Any) -> list[Any]:
        return [
            (b.type, getattr(b, "input", None), getattr(b, "text", None)) for b in message.content
        ]

    assert shape(final) == shape(whole)
    assert (final.stop_reason, final.usage.output_tokens) == ("tool_use", WHOLE)
    deltas = [e.delta.type for e in events if e.type == "content_block_delta"]
    assert deltas.count("input_json_delta") > 2
    calls = [block for block in whole.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}] * 2
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"} for call in calls
    ]
    messages: list[Any] = [
        *ASK,
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": results},
    ]
    second = claude.messages.create(**{**asked, "messages": messages})
    assert [b.text for b in second.content if b.type == "text"] == [SAID]
    counted = claude.messages.count_tokens(
        model=tooled.model, messages=messages, tools=asked["tools"]
    )
    assert counted.input_tokens == second.usage.input_tokens


def test_messages_that_must_think_within_a_budget_are_refused(
    claude: anthropic.Anthropic, tooled: Deployed
) -> None:
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS}
    refused: list[dict[str, Any]] = [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    ]
    for more in refused:
        with pytest.raises(anthropic.BadRequestError) as error:
            claude.messages.create(
                model=tooled.model, max_tokens=5, messages=ASK, tools=[tool], **more
            )
        told: Any = error.value.body
        assert told["error"]["details"]["error_code"] == "unsupported_parameter"


def test_job_answers_with_calls_and_reasoning_the_same_each_time(
    live_portal: LivePortal, token: str, tooled: Deployed
) -> None:
    body = {"model": tooled.model, "messages": ASK, "tools": TOOLS}
    with live_portal.client(token) as client:
        job = client.post("/api/v1/jobs", json=body).json()["id"]
        path = f"/api/v1/jobs/{job}/result"

        def answered() -> bool:
            return client.get(path).status_code == 200

        eventually(answered, within=30, what="the job is answered")
        first = client.get(path).json()
        assert client.get(path).json() == first
    (choice,) = first["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"] == THOUGHT
    assert len(choice["message"]["tool_calls"]) == 2
    details = first["usage"]["completion_tokens_details"]
    assert details == {"reasoning_tokens": len(THOUGHT)}


def test_batch_answers_with_calls_and_reasoning(client: openai.OpenAI, tooled: Deployed) -> None:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": tooled.model, "messages": ASK, "tools": TOOLS},
    }
    source = client.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    eventually(
        lambda: client.batches.retrieve(batch.id).status == "completed",
        within=60,
        what="the batch has ended",
    )
    output = client.batches.retrieve(batch.id).output_file_id
    assert output is not None
    (choice,) = json.loads(client.files.content(output).text)["response"]["body"]["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"] == THOUGHT
    assert choice["message"]["tool_calls"][1]["function"]["name"] == "get_weather"
