"""Apps that Dify runs, behind the same seam as those that the portal runs itself.

Dify's key stays in here. What it calls a conversation and a message is kept with what is needed to
name them again: to Dify a user is a number that stands for an API key and its caller's user.
"""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog

from knowledge.applications.backends import (
    AnsweredMessage,
    AppCall,
    AppEvent,
    Began,
    Delta,
    Ended,
    Source,
    Sources,
)
from knowledge.applications.dify import faults
from knowledge.applications.dify.dsl import SEARCH, fills_search
from knowledge.applications.spec import InputValue
from knowledge.dify import app_calls, errors
from knowledge.dify import app_shapes as shapes
from knowledge.dify.answers import fault_of_code
from knowledge.dify.app_api import AsyncAppApi, AsyncChannel
from knowledge.models import AppMode
from portal.core.actors import Context
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

_SHORT_SECONDS: Final = 5.0
_RATINGS: Final[Mapping[int, shapes.Rating | None]] = {1: "like", -1: "dislike", 0: None}
_RETRIEVAL, _LLM = "knowledge-retrieval", "llm"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one app runs.

    Attributes:
        bases: ids in Dify of knowledge bases -> the portal's.
    """

    base_url: str
    key: str = field(repr=False)
    mode: AppMode
    bases: Mapping[str, UUID] = field(default_factory=dict)


class Channels:
    """The connections of one event loop to instances of Dify."""

    def __init__(self) -> None:
        self._open: dict[str, AsyncChannel] = {}

    def to(self, target: Target) -> AsyncAppApi:
        """The app at a target; on the event loop."""
        channel = self._open.get(target.base_url)
        if channel is None:
            channel = self._open[target.base_url] = AsyncChannel(target.base_url)
        return AsyncAppApi(channel, target.key)

    async def aclose(self) -> None:
        while self._open:
            await self._open.popitem()[1].aclose()


class DifyBackend:
    """One app that Dify runs.

    Args:
        target: None while the app is on its way there.

    Every method raises what ``faults.told`` makes of Dify's refusals and silences.
    """

    def __init__(self, channels: Channels, target: Target | None) -> None:
        self._channels = channels
        self._target = target

    async def answer(self, call: AppCall) -> AsyncGenerator[AppEvent, None]:
        """As ``Backend`` says; what is closed before its end is stopped in Dify, too.

        Raises:
            AppNotReady: the app is not there yet.
        """
        if self._target is None:
            raise faults.AppNotReady
        api, user = self._channels.to(self._target), _user_of(call)
        asked, reading = _question(call, user), _Reading(self._target, user)
        try:
            async with api.stream(asked) as events:
                async for event in events:
                    for told in reading.read(event):
                        yield told
            reading.check_whole()
        except errors.DifyFault as fault:
            raise faults.told(fault) from None
        finally:
            if reading.task_id and not reading.over:
                await self._stop(call.mode, reading.task_id, user)

    async def stop(self, context: Context, message: AnsweredMessage) -> None:
        """Ends an answer that another process may be streaming."""
        if message.remote_message_id and self._target is not None:
            _, task_id = _read_message(message.remote_message_id)
            user = _read_conversation(message.remote_conversation_id)[1]
            await self._stop(self._target.mode, task_id, user)

    async def _stop(self, mode: AppMode, task_id: str, user: str) -> None:
        call = app_calls.stop_chat if mode == AppMode.CHAT else app_calls.stop_run
        try:
            await self._do(call(task_id, user=user))
        except PortalError as fault:
            # The caller is gone either way; Dify ends the task by itself.
            log.warning("app.stop_failed", problem=fault.error_code)

    async def rate(
        self, context: Context, message: AnsweredMessage, rating: int, comment: str
    ) -> None:
        """Tells Dify how an answer was liked; runs have no ratings there."""
        run = self._target is not None and self._target.mode == AppMode.RUN
        if run or not message.remote_message_id:
            return
        message_id, _ = _read_message(message.remote_message_id)
        user = _read_conversation(message.remote_conversation_id)[1]
        await self._do(
            app_calls.give_feedback(message_id, rating=_RATINGS[rating], user=user, content=comment)
        )

    async def forget(self, context: Context, remote_conversation_id: str) -> None:
        """Deletes a conversation; one that is gone is forgotten already."""
        conversation_id, user = _read_conversation(remote_conversation_id)
        if conversation_id:
            with suppress(faults.ConversationGone):
                await self._do(app_calls.delete_conversation(conversation_id, user=user))

    async def _do(self, call: app_calls.Call[Any]) -> None:
        """A short call over a connection of its own: whoever makes it may have no other."""
        if self._target is None:
            return
        channel = AsyncChannel(self._target.base_url)
        try:
            await AsyncAppApi(channel, self._target.key).do(call, seconds=_SHORT_SECONDS)
        except errors.DifyFault as fault:
            raise faults.told(fault) from None
        finally:
            await channel.aclose()


# -- what is asked -----------------------------------------------------------------------------


def _question(call: AppCall, user: str) -> app_calls.Call[Any]:
    inputs = {name: _input(value) for name, value in call.inputs.items()}
    if fills_search(call.spec, call.mode):
        # Dify fails a run that asks for nothing.
        inputs[SEARCH] = call.search or "-"
    if call.mode == AppMode.RUN:
        return app_calls.run(inputs=inputs, user=user)
    conversation_id, _ = _read_conversation(call.remote_conversation_id)
    return app_calls.chat(
        query=call.query, user=user, inputs=inputs, conversation_id=conversation_id
    )


def _input(value: InputValue) -> str | int | float:
    """Dify has no switches in its forms: they are a choice of two words."""
    return str(value).lower() if isinstance(value, bool) else value


def _user_of(call: AppCall) -> str:
    """The user that an earlier call of the conversation was made for, or else its own."""
    known = _read_conversation(call.remote_conversation_id)[1]
    return known or _user(call.context, call.end_user)


def _user(context: Context, end_user: str) -> str:
    told = f"{context.api_key_id}:{end_user}"
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def _write_conversation(conversation_id: str, user: str) -> str:
    return f"{conversation_id}.{user}"


def _read_conversation(text: str) -> tuple[str, str]:
    """The id of a conversation, empty for none, and its user."""
    conversation_id, _, user = text.partition(".")
    return conversation_id, user


def _write_message(message_id: str, task_id: str) -> str:
    return UUID(message_id).hex + UUID(task_id).hex


def _read_message(text: str) -> tuple[str, str]:
    """The id of a message, and of the task that answers it."""
    return str(UUID(text[:32])), str(UUID(text[32:]))


# -- what is answered --------------------------------------------------------------------------


class _Reading:
    """Reads the events of one answer.

    Attributes:
        task_id: empty before Dify has taken the question.
        over: Dify has ended the task.
    """

    def __init__(self, target: Target, user: str) -> None:
        self.task_id = ""
        self.over = False
        self._target = target
        self._user = user
        self._usage = [0, 0]
        self._whole = False

    def read(self, event: shapes.AppEvent) -> Iterator[AppEvent]:
        """What the portal tells of an event of Dify's.

        Raises:
            DifyFault: the event tells of a failure.
        """
        if not self.task_id and event.task_id and event.event != "error":
            yield self._begin(event)
        reader = _READERS.get(event.event)
        if reader is not None:
            yield from reader(self, event)

    def _begin(self, event: shapes.AppEvent) -> Began:
        self.task_id = event.task_id
        return Began(
            remote_conversation_id=_write_conversation(event.conversation_id, self._user),
            remote_message_id=_write_message(
                event.message_id or event.workflow_run_id, event.task_id
            ),
        )

    def check_whole(self) -> None:
        """Refuses an answer whose stream ended in its midst."""
        if not self._whole:
            raise errors.BrokenOff

    def _message(self, event: shapes.AppEvent) -> Iterator[AppEvent]:
        if event.answer:
            yield Delta(event.answer)

    def _text_chunk(self, event: shapes.AppEvent) -> Iterator[AppEvent]:
        if event.data is not None and event.data.text:
            yield Delta(event.data.text)

    def _node_finished(self, event: shapes.AppEvent) -> Iterator[AppEvent]:
        data = event.data
        if data is None or data.outputs is None:
            return
        if data.node_type == _RETRIEVAL:
            yield Sources(list(_sources(data.outputs.get("result"), self._target.bases)))
        elif data.node_type == _LLM:
            usage = data.outputs.get("usage") or {}
            self._usage[0] += int(usage.get("prompt_tokens") or 0)
            self._usage[1] += int(usage.get("completion_tokens") or 0)

    def _finished(self, event: shapes.AppEvent) -> Iterator[AppEvent]:
        self.over = True
        status = event.data.status if event.data is not None else ""
        if status == "failed":
            raise errors.ModelFailed
        self._whole = True
        reason = "stopped" if status == "stopped" else "stop"
        yield Ended(reason, *self._usage)

    def _error(self, event: shapes.AppEvent) -> Iterator[AppEvent]:
        self.over = True
        raise fault_of_code(event.code)


_READERS: Final = {
    "message": _Reading._message,
    "text_chunk": _Reading._text_chunk,
    "node_finished": _Reading._node_finished,
    "workflow_finished": _Reading._finished,
    "error": _Reading._error,
}


def _sources(found: Any, bases: Mapping[str, UUID]) -> Iterator[Source]:
    """The passages that a retrieval node found."""
    for number, one in enumerate(found if isinstance(found, list) else (), 1):
        told = one.get("metadata") or {}
        base = bases.get(str(told.get("dataset_id")))
        yield Source(
            document=str(one.get("title") or told.get("document_name") or ""),
            text=str(one.get("content") or ""),
            score=_score(told.get("score")),
            knowledge_base_id=str(base) if base is not None else "",
            position=int(told.get("position") or number),
        )


def _score(score: Any) -> float:
    return min(max(float(score or 0.0), 0.0), 1.0)
