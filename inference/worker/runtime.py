"""The inference worker's heart: claimed jobs into the engine, its events out to callers.

Threads: the engine's own, one that loads and unloads it, one that talks to PostgreSQL (claim and
settle) where no other could do so at once, one that publishes, one that listens to the doorbell,
one to cancellations, one that beats. They meet in ``Running``.
"""

import base64
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec
import structlog

from inference import dispatch
from inference.engines.base import Done, Engine, Event, Failed, GenerationRequest, Sampling, Token
from inference.models.dispatch import WorkerState
from inference.models.jobs import JobState
from inference.payloads import Ciphers, Extras, Prompt, unpack_prompt
from inference.settlement import Settled, Settlement, end_of
from inference.worker.bell import BellListener, CancelListener
from inference.worker.choices import ChoiceDone, Choices
from inference.worker.claims import Claimed
from inference.worker.counts import Counts
from inference.worker.database import Queue, Release
from inference.worker.detailed import DetailedAnswer, choice_of
from inference.worker.figures import Figures
from inference.worker.heartbeat import Heartbeat, Presence
from inference.worker.pace import Pace
from inference.worker.publisher import Detail, Ended, Piece, Publisher
from inference.worker.residency import Residency
from inference.worker.running import Running, RunningJob, engine_id
from inference.worker.settings import Assignment
from portal.core.broker import Doorbell, sync_client
from portal.core.crypto import InvalidCiphertext, Keyring
from portal.core.env import Env
from portal.core.errors import PortalError
from portal.core.ids import uuid7
from portal.core.resp import RespClient
from tenants.models.ledger import Measure

log = structlog.get_logger(__name__)

_ENGINE_FAILED: Final = "engine_failed"
_BEAT_BROKER_SECONDS: Final = 0.25
_NO_EXTRAS: Final = Extras()


class InferenceRuntime:
    """Serves one deployment until it is drained."""

    def __init__(self, env: Env, assignment: Assignment) -> None:
        self._env = env
        self._assignment = assignment
        self._name = f"{assignment.name}@{socket.gethostname()}:{os.getpid()}"
        self._ciphers = Ciphers(Keyring.parse(env.encryption_keys.get_secret_value()))
        self._running = Running()
        self._choices = Choices(self._emit)
        self._pace = Pace()
        self._counts = Counts()
        self._redis_url = env.redis_url.get_secret_value()
        self._broker = RespClient(self._redis_url)
        self._bell = Doorbell(self._broker)
        self._presence = Presence(uuid7(), self._name, assignment.deployment_id, assignment.engine)
        self._draining = threading.Event()
        self._figures = Figures()
        self._residency = Residency(
            assignment,
            presence=self._presence,
            running=self._running,
            emit=self._choices.emit,
            on_open=self._open,
            on_pause=self._pause,
        )
        self._opened = False
        self._publisher = Publisher(
            RespClient(self._redis_url), on_sent=self._sent, on_failed=self._unsent
        )
        self._queue = Queue(
            assignment.database_url,
            deployment_id=assignment.deployment_id,
            worker=self._name,
            lease_seconds=env.lease_seconds,
            capacity=self._capacity,
            on_claimed=self._start_jobs,
            on_settled=self._settled,
            on_more=self._ring,
            on_moved=self._ring_all,
        )
        self._heartbeat = Heartbeat(
            assignment.database_url,
            # A broker that hangs must not cost the leases: they last several beats.
            sync_client(self._redis_url, timeout_s=_BEAT_BROKER_SECONDS),
            presence=self._presence,
            running=self._running,
            pace=self._pace,
            counts=self._counts,
            interval_seconds=env.heartbeat_seconds,
            lease_seconds=env.lease_seconds,
            figures=lambda: self._figures.row(self._residency.stats()),
            on_desired=self._residency.want,
            on_cancel=self._cancel,
            on_lost=self._lose,
        )
        self._listener = BellListener(
            RespClient(self._redis_url),
            assignment.queue,
            has_room=lambda: self._capacity() > 0,
            is_idle=lambda: not len(self._running),
            on_ring=self._queue.ring,
        )
        self._cancels = CancelListener(
            sync_client(self._redis_url), assignment.queue, on_cancel=self._cancel_by_id
        )

    # -- life ------------------------------------------------------------------------------

    @property
    def _engine(self) -> Engine | None:
        return self._residency.engine

    def start(self) -> None:
        """Begins to beat; the first beat tells whether to load and to claim."""
        self._residency.start()
        self._heartbeat.start()

    def wake(self) -> None:
        """There is work: called by the Celery task."""
        self._listener.wake()

    def _open(self) -> None:
        """The model is there: jobs are claimed from here on."""
        log.info("worker.ready", worker=self._name, slots=self._residency.slots)
        if self._opened:
            self._queue.resume()
            self._listener.resume()
            return
        self._opened = True
        for part in (self._publisher, self._queue, self._listener, self._cancels):
            part.start()

    def _pause(self) -> None:
        """Nothing is claimed when this returns; what was, runs or is about to."""
        log.info("worker.paused", worker=self._name)
        self._listener.pause()
        self._queue.pause()
        # What waits is for others.
        self._ring()

    def drain(self) -> None:
        """Claims no more, lets what runs finish within the drain time, puts the rest back."""
        self._draining.set()
        self._presence.now(WorkerState.DRAINING)
        self._residency.stop(self._env.drain_seconds)
        if self._opened:
            self._queue.stop_claiming()
            self._listener.stop()
            if not self._running.wait_empty(self._env.drain_seconds):
                self._put_back()
                self._running.wait_empty(5)
            self._cancels.stop()
            self._queue.stop()
            self._publisher.stop()
        self._residency.close()
        if self._opened:
            self._ring()
            self._broker.close()
        self._presence.now(WorkerState.STOPPED)
        self._heartbeat.stop()

    def _put_back(self) -> None:
        """What has shown nothing waits for another worker; the rest ends where it is."""
        for job in self._running.all():
            if job.ending is not None:
                continue
            if job.shown:
                self._end(job, Failed(job.engine_id, "drained", "The worker was stopped."))
            else:
                self._give_back(job, forgive=True)

    # -- in --------------------------------------------------------------------------------

    def _capacity(self) -> int:
        if self._draining.is_set() or not self._residency.serving:
            return 0
        return self._residency.slots - self._running.slots

    def _ring(self) -> None:
        dispatch.ring(self._bell, self._assignment.queue)

    def _ring_all(self, queues: set[str]) -> None:
        for queue in queues:
            dispatch.ring(self._bell, queue)

    def _start_jobs(self, claimed: list[Claimed]) -> None:
        self._counts.claimed(len(claimed))
        for claim in claimed:
            self._start_job(claim)
        self._pace.filled(now=time.monotonic(), full=self._capacity() <= 0)

    def _start_job(self, claim: Claimed) -> None:
        assert self._engine is not None
        try:
            cipher = self._ciphers.of(claim.tenant_id, claim.data_key_version, claim.data_key)
            job = RunningJob(claim, cipher)
            prompt = unpack_prompt(job.cipher.decrypt(claim.prompt, row_id=claim.id))
        except (InvalidCiphertext, msgspec.MsgspecError) as fault:
            log.error("payload.unreadable", job_id=str(claim.id), error=str(fault))
            self._queue.settle([_unreadable(claim)])
            return
        if prompt.extras is not None and prompt.extras.detailed:
            job.answer = DetailedAnswer(claim.parameters.n)
        self._running.add(job)
        if claim.cancel_requested:
            self._end(job, Done(job.engine_id, "cancelled", claim.prompt_tokens, 0))
            return
        request = GenerationRequest(
            job.engine_id,
            prompt.ids,
            prompt.messages,
            _sampling(claim, prompt),
            cache_scope=claim.tenant_id.hex,
            tools=prompt.extras.tools if prompt.extras else "",
            embedding=prompt.extras.embedding if prompt.extras else None,
        )
        try:
            self._choices.submit(self._engine, request, claim.parameters.n)
        except PortalError as fault:
            self._end(job, Failed(job.engine_id, _ENGINE_FAILED, fault.message))

    # -- out -------------------------------------------------------------------------------

    def _emit(self, events: Sequence[Event]) -> None:
        """All events of one engine step; on the engine's thread, so it only hands them on."""
        pieces: list[Piece] = []
        for event in events:
            job = self._running.get(event.request_id)
            if job is None or job.lost or job.ending is not None:
                continue
            if isinstance(event, Token):
                self._token(job, event, pieces)
            else:
                self._terminal(job, event, pieces)
        if pieces:
            self._publisher.send(pieces)

    def _token(self, job: RunningJob, token: Token, pieces: list[Piece]) -> None:
        first = job.saw_token()
        if not job.claim.stream:
            if job.answer is not None:
                job.answer.add(token)
            else:
                job.pieces.append(token.text)
            job.gathered += token.tokens
            return
        if first:
            self._queue.mark(job.progress())
        detail = None if job.answer is None else Detail(choice_of(token), token.logprobs)
        pieces.append(Piece(job, token.text, token.tokens, detail=detail))

    def _terminal(self, job: RunningJob, event: Done | Failed, pieces: list[Piece]) -> None:
        if isinstance(event, ChoiceDone):
            self._choice_done(job, event, pieces)
            return
        job.ending = event
        whole, tokens = "", 0
        if not job.claim.stream and isinstance(event, Done) and event.reason != "cancelled":
            # Embeddings are text of no tokens.
            whole, tokens = job.whole(event), event.completion_tokens
        pieces.append(Piece(job, whole, tokens, last=True))
        if isinstance(event, Failed) and event.code == _ENGINE_FAILED and self._engine_is_dead():
            self._engine_died()

    def _choice_done(self, job: RunningJob, event: ChoiceDone, pieces: list[Piece]) -> None:
        if job.claim.stream:
            detail = Detail(event.choice, reason=event.reason)
            pieces.append(Piece(job, "", 0, detail=detail))
        elif job.answer is not None:
            job.answer.end(event)

    def _end(self, job: RunningJob, event: Done | Failed) -> None:
        """Ends a job from this side, as if the engine had."""
        pieces: list[Piece] = []
        self._terminal(job, event, pieces)
        self._publisher.send(pieces)
        if self._engine is not None:
            self._choices.cancel(self._engine, job.engine_id)

    def _sent(self, pieces: list[Piece]) -> None:
        ended: list[Settlement] = []
        for piece in pieces:
            job = piece.job
            job.published += piece.tokens
            if piece.last and not job.lost:
                self._finish(job, ended, keep=piece if job.kept else None)
        if ended:
            # Alone, they keep no other caller's text waiting.
            self._queue.settle(ended, wait=len(self._running) == len(ended))

    def _finish(self, job: RunningJob, ended: list[Settlement], keep: Piece | None = None) -> None:
        if job.ending is not None and self._worth_another_run(job, job.ending):
            self._give_back(job, forgive=False)
            return
        ended.append(self._settlement(job, keep))

    def _worth_another_run(self, job: RunningJob, ending: Done | Failed) -> bool:
        """An engine that died is no fault of a job that has shown nothing: it runs again."""
        if not isinstance(ending, Failed) or ending.code != _ENGINE_FAILED or job.shown:
            return False
        return job.claim.attempts < self._env.max_attempts

    def _unsent(self, pieces: list[Piece]) -> None:
        """The broker is away: streams end at their watermark, whole answers are kept instead."""
        ended: list[Settlement] = []
        for piece in pieces:
            job = piece.job
            if job.lost:
                continue
            if job.claim.stream and (piece.text or piece.tokens or piece.detail):
                self._cut(job, ended)
            elif piece.last:
                self._finish(job, ended, keep=piece)
        if ended:
            self._queue.settle(ended)

    def _cut(self, job: RunningJob, ended: list[Settlement]) -> None:
        """Ends a stream of which a piece is missing: what comes after it must not be sent."""
        job.ending = Failed(job.engine_id, "broker_lost", "The token stream was interrupted.")
        job.lost = True
        ended.append(self._settlement(job))
        if self._engine is not None:
            self._choices.cancel(self._engine, job.engine_id)

    def _settlement(self, job: RunningJob, keep: Piece | None = None) -> Settlement:
        ending, claim = job.ending, job.claim
        answer = None
        tokens = job.published
        state, reason, code, message = _outcome(job, self._env.max_attempts)
        worth_keeping = job.kept and state == JobState.SUCCEEDED
        if keep is not None and (keep.tokens or keep.text or worth_keeping):
            tokens = keep.tokens
            sealed = job.cipher.encrypt(keep.text.encode(), row_id=claim.id)
            answer = base64.b64encode(sealed).decode()
        return Settlement(
            claim.id,
            JobState.RUNNING,
            state,
            completion_tokens=tokens,
            fence=claim.fence,
            finish_reason=reason,
            error_code=code,
            error_message=message,
            measure=Measure.MEASURED if isinstance(ending, Done) else Measure.ESTIMATED,
            answer=answer,
            digest=self._residency.assignment.digest,
            first_token_at=job.first_token_at,
            stop=ending.stop if isinstance(ending, Done) else -1,
            shown=job.shown,
        )

    def _settled(self, ended: list[Settled], asked: list[Settlement]) -> None:
        """After the commit: tells the gateways, and makes room."""
        self._counts.settled(ended)
        by_id = {s.job_id: s for s in asked}
        ends = [Ended(s.gateway, end_of(s, by_id[s.job_id])) for s in ended if s.gateway]
        if ends:
            self._publisher.send(ends)
        found = (self._running.get(engine_id(s.job_id, s.fence or 0)) for s in asked)
        done = [job for job in found if job is not None]
        self._running.remove(done)
        tokens = sum(job.claim.reserved_tokens for job in done)
        self._pace.ended(tokens, now=time.monotonic(), full=self._capacity() <= 0)

    # -- exceptions to the way ----------------------------------------------------------------

    def _cancel_by_id(self, job_id: UUID) -> None:
        job = self._running.of_job(job_id)
        if job is not None:
            self._cancel(job)

    def _cancel(self, job: RunningJob) -> None:
        if self._engine is not None and job.ending is None:
            self._choices.cancel(self._engine, job.engine_id)

    def _lose(self, job: RunningJob) -> None:
        """Another claim has the job: it is dropped without a word, for its fence is stale."""
        log.warning("job.lost", job_id=str(job.claim.id), fence=job.claim.fence)
        job.lost = True
        self._running.remove([job])
        if self._engine is not None:
            self._choices.cancel(self._engine, job.engine_id)

    def _give_back(self, job: RunningJob, *, forgive: bool) -> None:
        job.lost = True
        self._queue.release(Release(job.claim.id, job.claim.fence, forgive))
        self._running.remove([job])
        if self._engine is not None:
            self._choices.cancel(self._engine, job.engine_id)

    def _engine_is_dead(self) -> bool:
        """A server elsewhere may fail a request and go on: then so does its engine here."""
        return self._engine is None or self._engine.stats().failure is not None

    def _engine_died(self) -> None:
        """A worker without an engine is of no use: it stops, and is started afresh."""
        if self._draining.is_set():
            return
        self._draining.set()
        self._queue.stop_claiming()
        self._presence.now(WorkerState.FAILED, "The engine failed; the worker restarts.")
        log.error("engine.failed", worker=self._name)
        os.kill(os.getpid(), signal.SIGTERM)


def _sampling(claim: Claimed, prompt: Prompt) -> Sampling:
    parameters, extras = claim.parameters, prompt.extras or _NO_EXTRAS
    return Sampling(
        max_tokens=parameters.max_tokens,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        stop=prompt.stop,
        seed=parameters.seed,
        top_k=extras.top_k,
        min_tokens=extras.min_tokens,
        logprobs=extras.logprobs,
        structure=extras.structure,
    )


def _unreadable(claim: Claimed) -> Settlement:
    return Settlement(
        claim.id,
        JobState.RUNNING,
        JobState.FAILED,
        fence=claim.fence,
        error_code="payload_unreadable",
        error_message="The stored prompt can't be read.",
    )


def _outcome(job: RunningJob, max_attempts: int) -> tuple[JobState, str, str, str]:
    """State, finish reason, error code and message of an ended job."""
    ending = job.ending
    if isinstance(ending, Done):
        if ending.reason == "cancelled":
            return JobState.CANCELLED, "", "cancelled", "The generation was cancelled."
        return JobState.SUCCEEDED, ending.reason, "", ""
    assert ending is not None
    dead = ending.code == _ENGINE_FAILED and job.claim.attempts >= max_attempts
    state = JobState.DEAD if dead and not job.shown else JobState.FAILED
    return state, "", ending.code, ending.message
