"""Jobs of the control plane whose text is followed as it comes, rather than kept for later.

They are admitted by ``submit``, like any job of the control plane, and answered like a gateway's:
over the broker, and from PostgreSQL where that is silent.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import msgspec
import structlog
from django.db import Error as DatabaseFault
from django.db import close_old_connections, connection

from inference.gateway.answers import error_of, interrupted
from inference.gateway.jobs import Status
from inference.gateway.parsing.deltas import Text
from inference.gateway.parsing.reading import AnswerReader, Reading
from inference.gateway.reader import ReturnReader
from inference.gateway.silence import tell
from inference.gateway.waiting import Waiter, WaitingRoom
from inference.jobs.cancelling import cancel_job
from inference.jobs.numbers import kept_text
from inference.jobs.submission import Following, JobRequest, submit
from inference.models import Job, JobState, Priority
from inference.models.jobs import ENDED
from inference.returns import End
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import PortalError
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.permissions import Scope

log = structlog.get_logger(__name__)
T = TypeVar("T")

SILENCE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25
_THREADS: Final = 16
_UNREAD_SECONDS: Final = 60
"""An answer that its follower could not be told stays so long."""


@dataclass(frozen=True, slots=True)
class LiveJob:
    """An admitted job; ``reading`` is how its answer is read, None for one that is its text."""

    id: UUID
    context: Context
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class LiveEnd:
    """How a job's answer ended; by the reason ``stopped`` if somebody cancelled it."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class LiveJobs:
    """The jobs that one event loop follows; an async context manager, and its threads for the ORM.

    A job whose follower goes away is cancelled, and so are those of a process that has died.
    """

    def __init__(self) -> None:
        self._id = uuid7().hex
        self._room = WaitingRoom()
        url = env().redis_url.get_secret_value()
        self._reader = ReturnReader(url, self._id, self._room.deliver)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="live-jobs")
        self._tenants: dict[UUID, UUID] = {}
        self._cancelling: set[asyncio.Task[Any]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader.start()
        self._watch = asyncio.create_task(self._watch_silence(), name="live-silence")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._cancelling:
            await asyncio.wait(set(self._cancelling), timeout=5)
        await self._reader.stop()
        self._threads.shutdown(wait=False)

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Runs what uses the ORM, with a connection of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _with_orm, work)

    def submit(
        self, *, context: Context, request: JobRequest, scope: Scope, session: bool = False
    ) -> LiveJob:
        """Admits a job, to be followed by ``follow``; call it on a thread.

        Args:
            context: of the API key that is charged, as ``key_context`` makes it.
            scope: what the key must have.
            session: the browser session of a playground's key was proved.

        Raises:
            PortalError: it is refused, which is recorded.
        """
        following = Following(self._id, scope.value, session)
        (outcome,) = submit(context=context, requests=[request], following=following)
        if outcome.job_id is None:
            raise outcome.error or PortalError("The job was not admitted.")
        with tenant_scope(context):
            parameters = Job.objects.values_list("parameters", flat=True).get(pk=outcome.job_id)
        reading = parameters.get("reading")
        read = None if reading is None else msgspec.convert(reading, Reading)
        return LiveJob(outcome.job_id, context, read)

    async def begin(self, work: Callable[[], tuple[T, LiveJob]]) -> tuple[T, LiveJob]:
        """Runs what submits a job; if whoever waits for it goes away meanwhile, it is cancelled."""
        begun = asyncio.ensure_future(self.on_thread(work))
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(self._abandon)
            raise

    def _abandon(self, begun: "asyncio.Future[tuple[Any, LiveJob]]") -> None:
        if not begun.cancelled() and begun.exception() is None:
            self._cancel(begun.result()[1])

    @asynccontextmanager
    async def follow(self, job: LiveJob) -> AsyncIterator[AsyncIterator[str | LiveEnd]]:
        """The pieces of a job's answer, without what the model thought, and at last its end.

        An answer that is not followed to its end is cancelled.

        Raises:
            PortalError: out of the pieces: it failed, or can't be followed further.
        """
        assert job.context.tenant_id is not None, "a key has a tenant"
        self._tenants[job.id] = job.context.tenant_id
        waiter = self._room.enter(job.id)
        try:
            yield _pieces(job, waiter)
        finally:
            self._room.leave(waiter)
            del self._tenants[job.id]
            if waiter.end is None:
                self._cancel(job)

    def _cancel(self, job: LiveJob) -> None:
        work = partial(cancel_job, context=job.context, job_id=job.id)
        task = asyncio.create_task(self._cancelled(job, work))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancelled(self, job: LiveJob, work: Callable[[], Job]) -> None:
        try:
            await self.on_thread(work)
        except (PortalError, DatabaseFault) as fault:
            # Its deadline ends it.
            log.warning("live.not_cancelled", job_id=str(job.id), error=str(fault))

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            silent = self._room.silent(SILENCE_SECONDS)
            if not silent:
                continue
            wanted = [(self._tenants[w.job_id], w.job_id) for w in silent]
            try:
                found = await self.on_thread(partial(_statuses, wanted))
            except DatabaseFault as fault:
                log.warning("live.unanswered", error=str(fault))
                continue
            tell(silent, found)


def live_request(body: bytes, *, action: str, wait_seconds: int, **more: Any) -> JobRequest:
    """A job that somebody waits for; its answer is not kept."""
    return JobRequest(
        body,
        priority=Priority.INTERACTIVE,
        wait_seconds=wait_seconds,
        result_seconds=_UNREAD_SECONDS,
        action=action,
        **more,
    )


async def _pieces(job: LiveJob, waiter: Waiter) -> AsyncIterator[str | LiveEnd]:
    reader = None if job.reading is None else AnswerReader(job.reading, job.id.hex)
    async for event in _events(waiter):
        if isinstance(event, End):
            if reader is not None and (rest := _said(reader.finish())):
                yield rest
            reason = "stopped" if event.state == JobState.CANCELLED else event.finish_reason
            yield LiveEnd(reason, event.prompt_tokens, event.completion_tokens)
            return
        text = event if reader is None else _said(reader.push(event))
        if text:
            yield text


async def _events(waiter: Waiter) -> AsyncIterator[str | End]:
    """A waiter's texts and, at last, the end of a job that has not failed."""
    while True:
        await waiter.wait()
        while waiter.events:
            event = waiter.events.popleft()
            if not isinstance(event, End):
                yield event.text
            elif event.state in (JobState.SUCCEEDED, JobState.CANCELLED):
                yield event
                return
            else:
                raise error_of(event, "query")
        if waiter.broken:
            raise interrupted()


def _said(deltas: Sequence[Any]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Text))


def _with_orm(work: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return work()
    finally:
        connection.close()


def _statuses(wanted: Sequence[tuple[UUID, UUID]]) -> dict[UUID, Status]:
    """How jobs stand, given by tenant and id."""
    by_tenant: defaultdict[UUID, list[UUID]] = defaultdict(list)
    for tenant_id, job_id in wanted:
        by_tenant[tenant_id].append(job_id)
    found: dict[UUID, Status] = {}
    for tenant_id, job_ids in by_tenant.items():
        with tenant_scope(Context.system("live jobs", tenant_id=tenant_id)):
            for job in Job.objects.filter(pk__in=job_ids):
                found[job.pk] = _status(job)
    return found


def _status(job: Job) -> Status:
    if job.state not in ENDED:
        return Status(job.fence, None, None)
    end = End(
        job.pk.bytes,
        job.fence,
        job.state,
        job.finish_reason,
        job.prompt_tokens,
        job.watermark,
        job.error_code,
        job.error_message,
    )
    return Status(job.fence, end, kept_text(job))
