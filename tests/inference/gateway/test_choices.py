"""Several choices and log probabilities, as OpenAI's own client asks for them and reads them."""

from typing import Any

import openai
import psycopg
import pytest

from tests.factories import Organisation
from tests.inference.gateway.apis import HELLO
from tests.inference.gateway.tooled_model import ANSWERS, ASK, CALL, SAID, THOUGHT, TOOLS, WHOLE
from tests.live import Deployed, LivePortal
from tests.servers import SessionServers


@pytest.fixture
def asked(live_portal: LivePortal) -> dict[str, Any]:
    return {"model": live_portal.fake.model, "messages": HELLO, "max_tokens": 5}


def test_ask_for_choices_whole_and_streamed_gives_each_with_its_index(
    client: openai.OpenAI, asked: dict[str, Any]
) -> None:
    whole = client.chat.completions.create(**asked, n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert [choice.finish_reason for choice in whole.choices] == ["length"] * 3
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 15
    texts, roles, reasons = ["", "", ""], [0, 0, 0], [[], [], []]  # type: ignore[var-annotated]
    usage = None
    for chunk in client.chat.completions.create(
        **asked, n=3, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles[choice.index] += choice.delta.role == "assistant"
            if choice.finish_reason:
                reasons[choice.index].append(choice.finish_reason)
    assert texts == [choice.message.content for choice in whole.choices]
    assert roles == [1, 1, 1]
    assert reasons == [["length"]] * 3
    assert usage == whole.usage


def test_charge_the_prompt_of_several_choices_once(
    client: openai.OpenAI,
    asked: dict[str, Any],
    tenant_a: Organisation,
    servers: SessionServers,
) -> None:
    usage = client.chat.completions.create(**asked, n=4).usage
    assert usage is not None
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        rows = superuser.execute(
            "SELECT prompt_tokens, completion_tokens FROM tenants_ledgerentry WHERE tenant_id = %s",
            [tenant_a.id],
        ).fetchall()
    assert rows == [(usage.prompt_tokens, 20)]


def test_ask_for_log_probabilities_covers_every_token(
    client: openai.OpenAI, asked: dict[str, Any]
) -> None:
    (choice,) = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2).choices
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content is not None
    assert "".join(entry.token for entry in content) == choice.message.content
    assert [bytes(entry.bytes or []).decode() for entry in content] == [e.token for e in content]
    for entry in content:
        assert len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].logprob == entry.logprob >= entry.top_logprobs[1].logprob


def test_stream_log_probabilities_come_with_the_text_they_cover(
    client: openai.OpenAI, asked: dict[str, Any]
) -> None:
    tokens = 0
    for chunk in client.chat.completions.create(**asked, logprobs=True, stream=True):
        (choice,) = chunk.choices
        told = choice.logprobs.content if choice.logprobs else None
        assert "".join(entry.token for entry in told or ()) == (choice.delta.content or "")
        assert all(entry.top_logprobs == [] for entry in told or ())
        tokens += len(told or ())
    assert tokens == 5


def test_ask_completions_for_log_probabilities_gives_the_older_shape(
    client: openai.OpenAI, live_portal: LivePortal
) -> None:
    asked: dict[str, Any] = {
        "model": live_portal.fake.model,
        "prompt": "Hello",
        "max_tokens": 4,
        "logprobs": 2,
        "n": 2,
    }
    whole = client.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1]
    for choice in whole.choices:
        told = choice.logprobs
        assert told is not None
        assert told.tokens is not None
        assert told.text_offset is not None
        assert told.top_logprobs is not None
        assert "".join(told.tokens) == choice.text
        ends = [*told.text_offset[1:], len(choice.text)]
        cut = [choice.text[a:b] for a, b in zip(told.text_offset, ends, strict=True)]
        assert cut == told.tokens
        assert [len(top) for top in told.top_logprobs] == [2] * 4
    offsets: list[list[int]] = [[], []]
    for chunk in client.completions.create(**asked, stream=True):
        for part in chunk.choices:
            if part.logprobs is not None:
                offsets[part.index] += part.logprobs.text_offset or []
    assert offsets == [choice.logprobs.text_offset for choice in whole.choices if choice.logprobs]


def test_plain_answers_are_as_they_were(client: openai.OpenAI, asked: dict[str, Any]) -> None:
    plain = client.chat.completions.create(**asked)
    same = client.chat.completions.create(**asked, n=1, logprobs=False)
    assert plain.choices == same.choices
    assert plain.choices[0].logprobs is None


def test_refuse_alternatives_that_the_engine_cannot_tell(
    client: openai.OpenAI, live_portal: LivePortal, asked: dict[str, Any]
) -> None:
    asked["model"] = live_portal.real.model
    told = client.chat.completions.create(**asked, logprobs=True).choices[0].logprobs
    assert told is not None
    assert told.content
    assert all(entry.logprob <= 0 and entry.top_logprobs == [] for entry in told.content)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "top_logprobs")


def calls_of(message: Any) -> list[tuple[str, str, str]]:
    calls = message.tool_calls or []
    return [(call.id, call.function.name, call.function.arguments) for call in calls]


def test_choices_with_tools_each_have_their_own_calls_and_reasoning(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    whole = client.chat.completions.create(model=tooled.model, messages=ASK, tools=TOOLS, n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    for choice in whole.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Let me look."
        assert choice.message.reasoning_content == THOUGHT  # type: ignore[attr-defined]
        assert len(choice.message.tool_calls or []) == 2
    ids = [call_id for choice in whole.choices for call_id, _, _ in calls_of(choice.message)]
    assert len(set(ids)) == 6
    usage: Any = whole.usage
    assert usage.completion_tokens == 3 * WHOLE
    assert usage.completion_tokens_details.reasoning_tokens == 3 * len(THOUGHT)


def test_choices_with_tools_streamed_are_what_they_are_whole(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    asked: dict[str, Any] = {
        "model": tooled.model,
        "messages": ASK,
        "tools": TOOLS,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 1,
    }
    whole = client.chat.completions.create(**asked)
    # The official helper puts the chunks together, and refuses those that don't fit.
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        pieces = [e for e in stream if e.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    assert len(pieces) > 8
    assert final.usage == whole.usage
    for streamed, one in zip(final.choices, whole.choices, strict=True):
        assert streamed.finish_reason == one.finish_reason == "tool_calls"
        assert streamed.message.content == one.message.content
        assert streamed.message.reasoning_content == THOUGHT  # type: ignore[attr-defined]
        mine, other = calls_of(streamed.message), calls_of(one.message)
        # Ids are of the job.
        assert [call[1:] for call in mine] == [call[1:] for call in other]
        assert streamed.logprobs == one.logprobs


def test_log_probabilities_cover_reasoning_and_calls_too(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    asked: dict[str, Any] = {"model": tooled.model, "messages": ASK, "tools": TOOLS}
    (choice,) = client.chat.completions.create(**asked, logprobs=True).choices
    assert choice.logprobs is not None
    told = "".join(entry.token for entry in choice.logprobs.content or ())
    assert told == ANSWERS["the weather"]
    assert choice.finish_reason == "tool_calls"
    chunks = list(client.chat.completions.create(**asked, logprobs=True, stream=True))
    parts = [chunk.choices[0] for chunk in chunks]
    streamed = [(part.logprobs and part.logprobs.content) or [] for part in parts]
    assert "".join(entry.token for entries in streamed for entry in entries) == told
    # The entries of a text come with it, as soon as it is known what it is.
    first = next(place for place, part in enumerate(parts) if part.delta.tool_calls)
    assert "".join(entry.token for entry in streamed[first]).strip() in CALL


def test_choices_of_a_model_that_thinks_are_cut_by_themselves(
    client: openai.OpenAI, tooled: Deployed
) -> None:
    ask: list[Any] = [{"role": "user", "content": "It is 18 degrees."}]
    for cut, content, reason in [(None, SAID, "stop"), (4, "", "length")]:
        asked: dict[str, Any] = {"model": tooled.model, "messages": ask, "max_tokens": cut, "n": 2}
        whole = client.chat.completions.create(**asked)
        with client.chat.completions.stream(**asked) as stream:
            final = stream.until_done().current_completion_snapshot
        for choice in (*whole.choices, *final.choices):
            message: Any = choice.message
            assert (message.content or "", choice.finish_reason) == (content, reason)
            assert message.reasoning_content == "Easy."[:cut]
