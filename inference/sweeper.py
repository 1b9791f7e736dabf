"""The sweeper: nothing stays live that nobody works on.

It finds jobs whose lease has run out or whose time is up, puts back what may run again, moves
what may go on elsewhere, ends the rest, rings for queues with waiting jobs, writes down how long
those are, and drops payloads and idempotency keys that were kept long enough.
"""

import threading
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
import redis
import structlog

from inference import backlog
from inference.fallback import move_of, moved, send_moves, stranded
from inference.models.jobs import JobState
from inference.returns import (
    FIELD,
    STREAM_LENGTH,
    STREAM_TTL_SECONDS,
    encode_returns,
    stream_key,
)
from inference.settlement import Settled, Settlement, end_of, settle, settled
from portal.core.broker import sync_client
from tenants.models.ledger import Measure

log = structlog.get_logger(__name__)

_BATCH: Final = 500

_LAPSED: Final = f"""
SELECT id, fence, stream AND (watermark > 0 OR first_token_at IS NOT NULL), watermark, attempts,
       cancel_requested_at IS NOT NULL, deadline < clock_timestamp()
  FROM inference_job
 WHERE state = {JobState.RUNNING.value} AND lease_until < clock_timestamp()
 LIMIT {_BATCH}
"""

_REQUEUE: Final = f"""
UPDATE inference_job j SET state = {JobState.QUEUED.value}, lease_until = NULL, worker = '',
       claimed_at = NULL, first_token_at = NULL, watermark = 0
  FROM unnest(%s::uuid[], %s::integer[]) AS x(id, fence)
 WHERE j.id = x.id AND j.fence = x.fence AND j.state + 0 = {JobState.RUNNING.value}
   AND j.lease_until < clock_timestamp()
"""

_OVERDUE: Final = f"""
SELECT id, cancel_requested_at IS NOT NULL FROM inference_job
 WHERE state = {JobState.QUEUED.value}
   AND (deadline < clock_timestamp() OR cancel_requested_at IS NOT NULL)
 LIMIT {_BATCH}
"""

# A generation that runs past its deadline is cancelled where it runs.
_OVERRUN: Final = f"""
UPDATE inference_job SET cancel_requested_at = clock_timestamp()
 WHERE state = {JobState.RUNNING.value} AND deadline < clock_timestamp()
   AND cancel_requested_at IS NULL
"""

_WAITING: Final = f"""
SELECT d.queue FROM inference_deployment d
 WHERE EXISTS (SELECT 1 FROM inference_job j
                WHERE j.deployment_id = d.id AND j.state = {JobState.QUEUED.value})
"""

_EXPIRED: Final = "DELETE FROM inference_jobpayload WHERE delete_after < clock_timestamp()"
_KEYS_EXPIRED: Final = "DELETE FROM inference_idempotencykey WHERE expires_at < clock_timestamp()"

# A worker that has not been heard of for an hour is history; what it was told to be is kept longer,
# for the machine may come back.
_GONE: Final = """
DELETE FROM inference_worker
 WHERE heartbeat_at < now() - interval '1 hour'
   AND (desired_state = 'serving' OR heartbeat_at < now() - interval '30 days')
"""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one round did."""

    requeued: int
    ended: int
    waiting_queues: tuple[str, ...]
    moved: int = 0


class Sweeper:
    """Sweeps over all tenants' jobs as ``portal_gateway``, one round at a time.

    It keeps its connection: logging in every second costs more than a round. Threads may share it.
    """

    def __init__(self, database_url: str, redis_url: str, *, max_attempts: int) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._max_attempts = max_attempts
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()

    def sweep(self) -> Sweep:
        """One round.

        Raises:
            psycopg.Error: the database refused something or is away; the next round connects anew.
        """
        with self._lock:
            try:
                swept, ended, asked = self._round(self._open())
            except psycopg.Error:
                self._drop()
                raise
        _tell(self._redis_url, ended, asked)
        return swept

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._database_url, autocommit=True, application_name="sweeper", connect_timeout=5
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _round(
        self, connection: psycopg.Connection[Any]
    ) -> tuple[Sweep, list[Settled], dict[UUID, Settlement]]:
        requeue, ends = _sort_lapsed(connection, self._max_attempts)
        if requeue:
            ids, fences = [i for i, _ in requeue], [f for _, f in requeue]
            connection.execute(_REQUEUE, [ids, fences])
        ends += _overdue(connection)
        count = _move(connection, ends)
        ended = _end(connection, ends)
        connection.execute(_OVERRUN)
        connection.execute(_EXPIRED)
        connection.execute(_KEYS_EXPIRED)
        connection.execute(_GONE)
        connection.execute(backlog.WRITE)
        waiting = connection.execute(_WAITING).fetchall()
        swept = Sweep(len(requeue), len(ended), tuple(row[0] for row in waiting), count)
        return swept, ended, {s.job_id: s for s in ends}


def _sort_lapsed(
    connection: psycopg.Connection[Any], max_attempts: int
) -> tuple[list[tuple[UUID, int]], list[Settlement]]:
    """Jobs whose worker is gone: those that run again, and those that end."""
    requeue: list[tuple[UUID, int]] = []
    ends: list[Settlement] = []
    for row in connection.execute(_LAPSED).fetchall():
        job_id, fence, shown, watermark, attempts, cancelled, overdue = row
        if shown or attempts >= max_attempts or cancelled or overdue:
            state, code, message = _verdict(shown=shown, cancelled=cancelled, overdue=overdue)
            ends.append(
                Settlement(
                    job_id,
                    JobState.RUNNING,
                    state,
                    completion_tokens=watermark if shown else 0,
                    fence=fence,
                    error_code=code,
                    error_message=message,
                    measure=Measure.ESTIMATED,
                    lapsed=True,
                    shown=shown,
                )
            )
        else:
            requeue.append((job_id, fence))
    return requeue, ends


def _verdict(*, shown: bool, cancelled: bool, overdue: bool) -> tuple[JobState, str, str]:
    if cancelled:
        return JobState.CANCELLED, "cancelled", "The generation was cancelled."
    if shown:
        return JobState.FAILED, "worker_lost", "The worker was lost while it was answering."
    if overdue:
        return JobState.FAILED, "queue_timeout", "The generation did not begin in time."
    return JobState.DEAD, "worker_lost", "Every worker that tried was lost."


def _overdue(connection: psycopg.Connection[Any]) -> list[Settlement]:
    ends: list[Settlement] = []
    for job_id, cancelled in connection.execute(_OVERDUE).fetchall():
        state, code, message = _verdict(shown=False, cancelled=cancelled, overdue=True)
        ends.append(
            Settlement(job_id, JobState.QUEUED, state, error_code=code, error_message=message)
        )
    return ends


def _move(connection: psycopg.Connection[Any], ends: list[Settlement]) -> int:
    """Moves what would end and may go on elsewhere, and what waits where nobody works."""
    moves = [m for m in map(move_of, ends) if m is not None]
    moves += stranded(connection, _BATCH)
    if not moves:
        return 0
    with connection.transaction():
        ids = [m.job_id for m in moves]
        return len(moved(send_moves(connection, moves, with_windows_of=ids)))


def _end(connection: psycopg.Connection[Any], ends: list[Settlement]) -> list[Settled]:
    if not ends:
        return []
    with connection.transaction():
        return settled(settle(connection, ends))


def _tell(redis_url: str, ended: list[Settled], asked: dict[UUID, Settlement]) -> None:
    """Tells the gateways at once; one that misses it asks PostgreSQL within a second."""
    ended = [job for job in ended if job.gateway]
    if not ended:
        return
    try:
        with sync_client(redis_url) as client:
            for job in ended:
                end = end_of(job, asked[job.job_id])
                client.xadd(
                    stream_key(job.gateway), {FIELD: encode_returns([end])}, maxlen=STREAM_LENGTH
                )
                client.expire(stream_key(job.gateway), STREAM_TTL_SECONDS)
    except (redis.RedisError, OSError) as fault:
        log.warning("ends.untold", jobs=len(ended), error=str(fault))
