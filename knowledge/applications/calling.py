"""Calling an app: what is asked is checked, its backend answers, and what was said is kept.

Whoever calls apps comes through here: the app gateway, schedules and events, evaluation.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import connection
from django.utils import timezone

from inference.jobs.live import LiveJobs
from knowledge.applications import conversations
from knowledge.applications.backends import (
    AnsweredMessage,
    AppCall,
    AppEvent,
    Backend,
    Began,
    Delta,
    Ended,
    Source,
    Sources,
)
from knowledge.applications.choosing import Backends
from knowledge.applications.conversations import Said
from knowledge.applications.selectors import get_app, get_version, published_version
from knowledge.applications.spec import check_inputs, read_spec
from knowledge.models import App, AppMessage, AppMode, MessageState
from portal.core.actors import Context
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound, PortalError
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, allowed, require
from tenants.services.checks import clean_text

log = structlog.get_logger(__name__)

MOST_QUERY_CHARS: Final = 32_000
MOST_USER_CHARS: Final = 120


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller sends.

    Attributes:
        app: the app's short name or id.
        user: the caller's own name for its user, whose conversations are its own.
        version: a version by number, for who may change the app; None for the published one.
    """

    app: str | UUID
    mode: AppMode
    query: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    conversation_id: UUID | None = None
    user: str = ""
    version: int | None = None
    session: bool = False


@dataclass(slots=True)
class Answered:
    """An answer as far as it has come."""

    call: AppCall
    text: list[str] = field(default_factory=list)
    sources: Sources | None = None
    ended: Ended | None = None
    failure: PortalError | None = None

    @property
    def answer(self) -> str:
        return "".join(self.text)

    def take(self, event: AppEvent) -> None:
        """Adds what an event brings."""
        if isinstance(event, Delta):
            self.text.append(event.text)
        elif isinstance(event, Sources):
            self.sources = event
        elif isinstance(event, Ended):
            self.ended = event


class Apps:
    """The apps that one event loop answers; an async context manager."""

    def __init__(self) -> None:
        self.live = LiveJobs()
        self._backends = Backends(self.live)
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Apps":
        await self.live.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._ending:
            await asyncio.wait(set(self._ending), timeout=5)
        await self._backends.aclose()
        await self.live.__aexit__(*exc)

    async def answer(
        self, context: Context, asked: Asked
    ) -> AsyncGenerator[AppEvent | AppCall, None]:
        """Answers: the call itself once its backend has taken it, then what the backend tells.

        Nothing is kept of a call that is refused. Close it (``contextlib.aclosing``): an answer
        that nobody waits for is stopped.

        Raises:
            PortalError: before the first event, a refusal; later, a failure.
        """
        call, backend = await self.live.on_thread(partial(self._prepare, context, asked))
        began_at = time.monotonic()
        async with aclosing(backend.answer(call)) as events:
            began = await anext(events)
            assert isinstance(began, Began), "a backend's first event"
            answered = Answered(call)
            try:
                await self.live.on_thread(partial(_keep_question, call, began))
                yield call
                async for event in events:
                    answered.take(event)
                    if isinstance(event, Ended):
                        # Who has seen the end may rate the answer, or ask on.
                        await self.live.on_thread(partial(_keep_answer, answered, began_at))
                    yield event
            except PortalError as fault:
                answered.failure = fault
                raise
            finally:
                if answered.ended is None:
                    self._keep(partial(_keep_answer, answered, began_at))

    async def stop(self, context: Context, app: str, message_id: UUID, user: str) -> None:
        """Ends an answer that is under way; one that has ended stays as it is.

        Raises:
            NotFound: no such message of this caller.
        """
        backend, message = await self.live.on_thread(
            partial(self._under_way, context, app, message_id, user)
        )
        if message is not None:
            await backend.stop(context, message)

    def _under_way(
        self, context: Context, reference: str, message_id: UUID, user: str
    ) -> tuple[Backend, AnsweredMessage | None]:
        require(context, Action.APP_CALL)
        with tenant_scope(context):
            app = callable_app(context, reference)
            message = conversations.get_message(context, app, message_id, user)
            live = message.state == MessageState.ANSWERING
            answered = conversations.as_answered(app, message) if live else None
            return self._backends.answering(app, message), answered

    def _prepare(self, context: Context, asked: Asked) -> tuple[AppCall, Backend]:
        require(context, Action.APP_CALL)
        user = clean_text(asked.user, "user", most=MOST_USER_CHARS)
        with tenant_scope(context):
            app = callable_app(context, asked.app)
            if app.mode != asked.mode:
                raise Invalid(f"This app is called at /{app.mode}.", code="wrong_mode")
            version = _version(context, app, asked)
            spec = read_spec(version.spec)
            history: list[Any] = []
            remote = ""
            if asked.conversation_id is not None:
                conversation = conversations.get_conversation(
                    context, app, asked.conversation_id, user
                )
                history = conversations.turns_of(conversation, spec.history)
                remote = conversation.remote_id
            call = AppCall(
                context=context,
                app_id=app.pk,
                slug=app.slug,
                mode=asked.mode,
                version=version.number,
                spec=spec,
                conversation_id=asked.conversation_id or uuid7(),
                message_id=uuid7(),
                query=_query(asked),
                inputs=check_inputs(spec, asked.inputs),
                end_user=user,
                history=history,
                remote_conversation_id=remote,
                session=asked.session,
            )
            return call, self._backends.of(app, version.number)

    def _keep(self, work: Callable[[], None]) -> None:
        """Keeps an answer although whoever waited for it may be gone."""
        task = asyncio.create_task(self._kept(work))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _kept(self, work: Callable[[], None]) -> None:
        await self.live.on_thread(work)


def callable_app(context: Context, reference: str | UUID) -> App:
    """An app that the caller's key may call; inside the tenant's scope.

    Raises:
        NotFound: none; one that is kept to other keys is this too.
    """
    app = get_app(reference)
    if app.allowed_keys and context.api_key_id not in app.allowed_keys:
        raise NotFound("There is no such app.")
    return app


def _version(context: Context, app: App, asked: Asked) -> Any:
    if asked.version is None:
        return published_version(app)
    # A playground's key is a person's who may change apps.
    if not (asked.session or allowed(context, Action.APP_EDIT)):
        raise Forbidden(
            "Only who may change apps calls a version by its number: leave 'version' out.",
            data={"action": Action.APP_EDIT.value},
        )
    return get_version(app, asked.version)


def _query(asked: Asked) -> str:
    if asked.mode == AppMode.RUN:
        return ""
    if not asked.query.strip() or "\0" in asked.query:
        raise Invalid("'query' is empty.", param="query")
    if len(asked.query) > MOST_QUERY_CHARS:
        raise Invalid(f"'query' may have {MOST_QUERY_CHARS} characters.", param="query")
    return asked.query


def _keep_question(call: AppCall, began: Began) -> None:
    with tenant_scope(call.context):
        app = get_app(call.app_id)
        found = conversations.conversations(call.context, app, call.end_user).filter(
            pk=call.conversation_id
        )
        conversation = found.first()
        if conversation is None:
            conversation = conversations.new_conversation(
                call.context, app, call.conversation_id, call.end_user
            )
        conversation.remote_id = began.remote_conversation_id or conversation.remote_id
        conversations.touch(conversation, app)
        conversation.save()
        message = AppMessage(
            id=call.message_id,
            tenant_id=app.tenant_id,
            conversation=conversation,
            version=call.version,
            job_id=began.job_id,
            remote_id=began.remote_message_id,
        )
        conversations.seal(message, Said(call.query, dict(call.inputs)))
        message.save(force_insert=True)


def _keep_answer(answered: Answered, began_at: float) -> None:
    call, ended, failure = answered.call, answered.ended, answered.failure
    sources: tuple[Source, ...] = tuple(answered.sources.sources) if answered.sources else ()
    with tenant_scope(call.context):
        message = AppMessage.objects.filter(pk=call.message_id).first()
        if message is None:
            # Its conversation was deleted meanwhile.
            return
        said = Said(call.query, dict(call.inputs), answered.answer, sources)
        conversations.seal(message, said)
        message.state = _state(ended, failure)
        message.error_code = failure.error_code if failure is not None else ""
        message.milliseconds = round((time.monotonic() - began_at) * 1000)
        if ended is not None:
            message.finish_reason = ended.reason
            message.prompt_tokens = ended.prompt_tokens
            message.completion_tokens = ended.completion_tokens
        message.save()
        count(
            call.app_id,
            calls=1,
            failures=int(failure is not None),
            prompt_tokens=message.prompt_tokens,
            completion_tokens=message.completion_tokens,
        )


def _state(ended: Ended | None, failure: PortalError | None) -> MessageState:
    if failure is not None:
        return MessageState.FAILED
    if ended is None or ended.reason == "stopped":
        return MessageState.STOPPED
    return MessageState.ANSWERED


_COUNTERS: Final = (
    "calls", "failures", "prompt_tokens", "completion_tokens", "likes", "dislikes",
)  # fmt: skip
_COUNT: Final = f"""
INSERT INTO knowledge_appusage AS u (id, tenant_id, app_id, day, {", ".join(_COUNTERS)})
SELECT %s, a.tenant_id, a.id, %s, {", ".join("greatest(0, %s)" for _ in _COUNTERS)}
  FROM knowledge_app a WHERE a.id = %s AND a.tenant_id = (SELECT current_tenant())
ON CONFLICT (tenant_id, app_id, day) DO UPDATE SET
    {", ".join(f"{c} = greatest(0, u.{c} + %s)" for c in _COUNTERS)}
"""


def count(app_id: UUID, **more: int) -> None:
    """Adds to what an app was used for today; inside the tenant's scope."""
    added = [more.get(counter, 0) for counter in _COUNTERS]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [uuid7(), timezone.now().date(), *added, app_id, *added])


def run_app(context: Context, asked: Asked) -> Answered:
    """Answers on this thread, for work that has no event loop, such as a schedule's.

    Raises:
        PortalError: it is refused, or fails.
        Conflict: an event loop runs on this thread.
    """
    return asyncio.run(answer_whole(context, asked))


async def answer_whole(context: Context, asked: Asked, apps: Apps | None = None) -> Answered:
    """The whole answer.

    Raises:
        PortalError: it is refused, or fails.
    """
    if apps is None:
        async with Apps() as made:
            return await answer_whole(context, asked, made)
    answered: Answered | None = None
    async with aclosing(apps.answer(context, asked)) as events:
        async for event in events:
            if isinstance(event, AppCall):
                answered = Answered(event)
            elif answered is not None:
                answered.take(event)
    if answered is None or answered.ended is None:
        raise Conflict("The app gave no answer.", code="no_answer")
    return answered
