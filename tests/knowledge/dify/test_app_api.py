"""Apps of Dify, asked on an event loop: what is streamed, what breaks off, and what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from knowledge.dify import app_calls, errors
from knowledge.dify.app_api import AsyncAppApi, AsyncChannel
from knowledge.dify.app_calls import Call
from knowledge.dify.app_shapes import AppEvent
from portal.core.outgoing import AsyncPinnedTransport, Targets, authorities
from tests.knowledge.dify import states
from tests.knowledge.dify import world as w
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.source import KnowledgeSource

CHAT, FLOW, RUN = "<CHAT_APP_API_KEY>", "<FLOW_APP_API_KEY>", "<WF_APP_API_KEY>"
USER = "user-1"
VACATION = app_calls.chat(query="Vacation?", user=USER)


@pytest.fixture
async def channel(dify: DifyDouble) -> AsyncIterator[AsyncChannel]:
    """To the double in the state of the recordings, with its model."""
    with KnowledgeSource("key") as source:
        w.recorded_world(dify, source)
        states.with_model(dify, source)
        found = AsyncChannel(dify.url)
        yield found
        await found.aclose()


async def events_of(channel: AsyncChannel, key: str, call: Call[Any]) -> list[AppEvent]:
    async with AsyncAppApi(channel, key).stream(call) as events:
        return [event async for event in events]


async def test_chat_streams_its_words_then_its_sources_and_usage(channel: AsyncChannel) -> None:
    told = await events_of(channel, CHAT, VACATION)
    assert "".join(e.answer for e in told if e.event == "message").startswith("Vacation is")
    end = told[-1]
    assert end.event == "message_end"
    assert end.metadata is not None
    assert end.metadata.usage.completion_tokens == 5
    assert [s.document_name for s in end.metadata.retriever_resources] == ["policy.md"]
    assert {e.conversation_id for e in told} == {end.conversation_id}


async def test_workflow_streams_its_words_then_all_its_tokens(channel: AsyncChannel) -> None:
    told = await events_of(channel, RUN, app_calls.run(inputs={"text": "x"}, user=USER))
    words = "".join(e.data.text for e in told if e.event == "text_chunk" and e.data)
    assert words == "Vacation is twenty five days. "
    end = told[-1]
    assert end.event == "workflow_finished"
    assert end.data is not None
    assert end.data.succeeded
    assert end.data.outputs == {"summary": words}
    assert end.data.total_tokens > 5


async def test_chatflow_that_fails_says_so_in_its_last_event_and_refuses_in_one_piece(
    channel: AsyncChannel, dify: DifyDouble
) -> None:
    dify.own.apps[w.CHATFLOW].dsl = w.dsl_of("console_app_import_advanced_chat_200")
    dify.own.apps[w.CHATFLOW].publish()
    end = (await events_of(channel, FLOW, VACATION))[-1]
    assert end.data is not None
    assert (end.event, end.data.status, end.data.succeeded) == (
        "workflow_finished", "failed", False,
    )  # fmt: skip
    with pytest.raises(errors.Refused):
        await AsyncAppApi(channel, FLOW).do(VACATION)


async def test_model_that_is_away_ends_a_chat_with_an_error(
    channel: AsyncChannel, dify: DifyDouble
) -> None:
    dify.own.models.clear()
    [end] = await events_of(channel, CHAT, VACATION)
    assert (end.event, end.code) == ("error", "provider_not_initialize")
    with pytest.raises(errors.ModelUnavailable):
        await AsyncAppApi(channel, CHAT).do(VACATION)


async def test_stream_that_is_cut_breaks_off(channel: AsyncChannel, dify: DifyDouble) -> None:
    dify.fail("cut")
    with pytest.raises(errors.BrokenOff):
        await events_of(channel, CHAT, VACATION)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("failed", errors.Failed),
        ("bad_gateway", errors.Down),
        ("busy", errors.Busy),
        ("drop", errors.BrokenOff),
        ("redirect", errors.Redirected),
        ("nonsense", errors.UnexpectedAnswer),
        ("denied", errors.Denied),
    ],
)
async def test_question_that_goes_wrong_raises_the_fault_of_its_kind(
    channel: AsyncChannel, dify: DifyDouble, kind: Any, error: type[errors.DifyFault]
) -> None:
    dify.fail(kind)
    with pytest.raises(errors.DifyFault) as raised:
        await events_of(channel, CHAT, VACATION)
    assert type(raised.value) is error
    assert "secret words" not in repr(raised.value)


async def test_call_without_an_answer_in_time_is_given_up(
    channel: AsyncChannel, dify: DifyDouble
) -> None:
    dify.fail("hang")
    with pytest.raises(errors.TimedOut):
        await AsyncAppApi(channel, CHAT).do(app_calls.info(), seconds=0.2)


async def test_answer_that_is_stopped_ends_where_it_was(
    channel: AsyncChannel, dify: DifyDouble
) -> None:
    dify.apps.gate.clear()
    api, words = AsyncAppApi(channel, CHAT), []
    async with api.stream(VACATION) as events:
        async for event in events:
            words.append(event.answer)
            await api.do(app_calls.stop_chat(event.task_id, user="another"))
            await api.do(app_calls.stop_chat(event.task_id, user=USER))
    assert words[0] == "Vacation "
    assert "".join(words) == "Vacation "


@pytest.mark.parametrize(
    ("key", "call", "error"),
    [
        (RUN, VACATION, errors.WrongMode),
        (CHAT, app_calls.run(inputs={}, user=USER), errors.WrongMode),
        ("app-nope", VACATION, errors.KeyRefused),
        (RUN, app_calls.run(inputs={}, user=USER), errors.Refused),
        (CHAT, app_calls.messages(w.CONVERSATION, user="another"), errors.Missing),
        (CHAT, app_calls.delete_conversation(w.CONVERSATION, user="another"), errors.Missing),
        (
            CHAT,
            app_calls.chat(query="x", user="another", conversation_id=w.CONVERSATION),
            errors.Missing,
        ),
    ],
)
async def test_call_that_an_app_refuses_raises_why(
    channel: AsyncChannel, key: str, call: Call[Any], error: type[errors.DifyFault]
) -> None:
    with pytest.raises(error):
        await AsyncAppApi(channel, key).do(call)


async def test_host_at_an_address_that_is_not_allowed_is_never_called(dify: DifyDouble) -> None:
    transport = AsyncPinnedTransport(Targets.parse("10.0.0.0/8"), authorities(None))
    channel = AsyncChannel(dify.url, transport)
    with pytest.raises(errors.AddressNotAllowed):
        await AsyncAppApi(channel, CHAT).do(app_calls.info())
    await channel.aclose()
    assert dify.seen == []
