"""Apps that Dify runs, behind the seam: what is streamed, stopped, kept, and told of faults."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from knowledge.applications.backends import (
    AnsweredMessage,
    AppCall,
    AppEvent,
    Began,
    Delta,
    Ended,
    Sources,
)
from knowledge.applications.dify import faults
from knowledge.applications.dify.backend import Channels, DifyBackend
from knowledge.applications.dify.deployed import deployment_of
from knowledge.applications.dify.targets import target_of
from knowledge.applications.selectors import published_version
from knowledge.applications.spec import read_spec
from knowledge.models import App, AppMode
from portal.core.errors import PortalError
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tests.knowledge.apps.dify.bench import AppBench
from tests.knowledge.dify.double import state

ANSWER = "Vacation is twenty five days. "


class Caller:
    """Calls one app as the app gateway does, from one API key and for one of its users."""

    def __init__(self, bench: AppBench, app: App, channels: Channels) -> None:
        self.bench, self.app = bench, app
        with tenant_scope(bench.context):
            deployment = deployment_of(app)
            assert deployment is not None
            self.backend = DifyBackend(channels, target_of(app, deployment))
            self.spec = read_spec(published_version(app).spec)
        self.context = replace(bench.context, api_key_id=uuid7())
        self.there: state.App = bench.there(app)

    def call(self, query: str = "Vacation?", **given: Any) -> AppCall:
        return AppCall(
            **{
                "context": self.context, "app_id": self.app.pk, "slug": self.app.slug,
                "mode": AppMode(self.app.mode), "version": 1, "spec": self.spec,
                "conversation_id": uuid7(), "message_id": uuid7(), "query": query,
                "end_user": "ann", **given,
            }
        )  # fmt: skip

    async def ask(self, query: str = "Vacation?", **given: Any) -> list[AppEvent]:
        async with aclosing(self.backend.answer(self.call(query, **given))) as events:
            return [event async for event in events]

    def message(self, began: Began) -> AnsweredMessage:
        return AnsweredMessage(
            self.app.pk, uuid7(), uuid7(), "ann", None,
            began.remote_conversation_id, began.remote_message_id,
        )  # fmt: skip


@pytest.fixture
async def channels() -> AsyncIterator[Channels]:
    made = Channels()
    yield made
    await made.aclose()


async def caller(bench: AppBench, channels: Channels, **spec: Any) -> Caller:
    """Of an app that is live in Dify."""

    def deployed() -> Caller:
        base = None
        if spec.pop("grounded", False):
            base = bench.base()
            bench.text(base, "policy.md", "Vacation: twenty five days per year.")
        app = bench.app(base=base, **spec)
        bench.settle()
        return Caller(bench, app, channels)

    return await sync_to_async(deployed)()


def began_of(events: list[AppEvent]) -> Began:
    assert isinstance(events[0], Began)
    return events[0]


def text_of(events: list[AppEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_chat_is_answered_with_its_sources_and_tokens(
    bench: AppBench, channels: Channels
) -> None:
    asker = await caller(bench, channels, grounded=True)
    events = await asker.ask()
    assert text_of(events) == ANSWER
    [sources] = [event for event in events if isinstance(event, Sources)]
    [source] = sources.sources
    assert (source.document, source.text) == ("policy.md", "Vacation: twenty five days per year.")
    [link] = await sync_to_async(bench.links)(kind="knowledge_base")
    assert source.knowledge_base_id == str(link.local_id)
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == "stop"
    assert events[-1].completion_tokens == 5
    assert events[-1].prompt_tokens > 0


async def test_run_is_answered_with_its_inputs(bench: AppBench, channels: Channels) -> None:
    inputs = [{"name": "text"}, {"name": "polite", "type": "boolean"}]
    asker = await caller(bench, channels, mode="run", prompt="{{polite}}: {{text}}", inputs=inputs)
    events = await asker.ask("", inputs={"text": "Dify lab", "polite": True})
    assert text_of(events) == ANSWER
    assert bench.double.apps.model.asked[-1][-1]["content"] == "true: Dify lab"
    assert isinstance(events[-1], Ended)
    assert events[-1].completion_tokens == 5


async def test_conversation_goes_on_where_it_was(bench: AppBench, channels: Channels) -> None:
    asker = await caller(bench, channels)
    first = began_of(await asker.ask("One?"))
    again = began_of(await asker.ask("Two?", remote_conversation_id=first.remote_conversation_id))
    assert again.remote_conversation_id == first.remote_conversation_id
    assert len(first.remote_conversation_id) <= 64
    assert len(first.remote_message_id) <= 64
    [conversation] = asker.there.conversations.values()
    assert [message.query for message in conversation.messages] == ["One?", "Two?"]
    said = [message["content"] for message in bench.double.apps.model.asked[-1]]
    assert said == ["One?", ANSWER, "Two?"]


async def test_users_of_one_key_and_keys_of_one_user_are_others_to_dify(
    bench: AppBench, channels: Channels
) -> None:
    asker = await caller(bench, channels)
    await asker.ask()
    await asker.ask(end_user="bob")
    await asker.ask(context=replace(bench.context, api_key_id=uuid7()))
    users = [c.user for c in asker.there.conversations.values()]
    assert len(set(users)) == 3
    assert not any("ann" in user or "bob" in user for user in users)


async def test_answer_that_nobody_waits_for_is_stopped_in_dify(
    bench: AppBench, channels: Channels
) -> None:
    asker = await caller(bench, channels)
    bench.double.apps.gate.clear()
    async with aclosing(asker.backend.answer(asker.call())) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    [task] = asker.there.tasks
    assert bench.double.apps.stopped == {task}


async def test_answer_is_stopped_by_another_process(bench: AppBench, channels: Channels) -> None:
    asker = await caller(bench, channels)
    bench.double.apps.gate.clear()
    told: list[AppEvent] = []
    async with aclosing(asker.backend.answer(asker.call())) as events:
        async for event in events:
            told.append(event)
            if isinstance(event, Delta):
                await asker.backend.stop(asker.context, asker.message(began_of(told)))
    assert text_of(told) == "Vacation "
    assert isinstance(told[-1], Ended)
    assert told[-1].reason == "stopped"


async def test_rating_is_told_to_dify_and_taken_back(bench: AppBench, channels: Channels) -> None:
    asker = await caller(bench, channels)
    message = asker.message(began_of(await asker.ask()))
    [conversation] = asker.there.conversations.values()
    await asker.backend.rate(asker.context, message, 1, "useful")
    assert (conversation.messages[0].rating, conversation.messages[0].comment) == (
        "like", "useful",
    )  # fmt: skip
    await asker.backend.rate(asker.context, message, 0, "")
    assert conversation.messages[0].rating is None


async def test_conversation_is_forgotten_once_and_for_all(
    bench: AppBench, channels: Channels
) -> None:
    asker = await caller(bench, channels)
    began = began_of(await asker.ask())
    for _ in range(2):
        await asker.backend.forget(asker.context, began.remote_conversation_id)
    assert asker.there.conversations == {}
    with pytest.raises(faults.ConversationGone):
        await asker.ask(remote_conversation_id=began.remote_conversation_id)


async def test_app_that_is_not_there_yet_says_so(bench: AppBench, channels: Channels) -> None:
    asker = await caller(bench, channels)
    backend = DifyBackend(channels, None)
    with pytest.raises(faults.AppNotReady) as raised:
        await anext(backend.answer(asker.call()))
    assert (raised.value.status, raised.value.retry_after) == (503, 5.0)
    await backend.forget(asker.context, "")


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("bad_gateway", faults.AppAway, 503),
        ("drop", faults.AppAway, 503),
        ("nonsense", faults.AppAway, 503),
        ("busy", faults.AppBusy, 503),
        ("denied", faults.AppUnusable, 503),
        ("html_404", faults.AppUnusable, 503),
        ("cut", faults.AppAway, 503),
    ],
)
async def test_dify_that_fails_is_told_without_its_words(
    bench: AppBench,
    channels: Channels,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    error: type[PortalError],
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    asker = await caller(bench, channels)
    bench.double.fail(kind, path="/v1/chat-messages$")
    with pytest.raises(error) as raised:
        await asker.ask()
    assert raised.value.status == status
    assert "secret words" not in repr(raised.value) + caplog.text
    assert asker.there.keys[0]["token"] not in repr(raised.value) + caplog.text
    assert text_of(await asker.ask()) == ANSWER


async def test_model_that_is_gone_fails_the_run_and_nothing_else(
    bench: AppBench, channels: Channels
) -> None:
    asker = await caller(bench, channels)
    bench.double.own.models.clear()
    with pytest.raises(faults.AppFailed):
        await asker.ask()


async def test_key_is_shown_by_nothing(bench: AppBench, channels: Channels) -> None:
    asker = await caller(bench, channels)
    assert asker.there.keys[0]["token"] not in repr(asker.backend._target)
    assert isinstance(asker.app.pk, UUID)
