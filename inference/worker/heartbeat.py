"""The worker's heartbeat: leases renewed, watermarks recorded, cancellations noticed.

On a thread and a connection of its own, so that nothing else the worker does can make it miss.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg
import redis
import structlog
from psycopg.types.json import Jsonb

from inference.models.dispatch import DesiredState, WorkerState
from inference.returns import alive_key
from inference.worker import claims
from inference.worker.counts import Counts
from inference.worker.pace import Pace
from inference.worker.running import Running, RunningJob
from inference.worker.settings import Assignment
from inference.worker.succession import take_over

log = structlog.get_logger(__name__)

_REGISTER: Final = """
INSERT INTO inference_worker (id, name, deployment_id, version_digest, engine, state, detail,
    state_since, loaded, desired_state, load_generation, slots, running, waiting,
    tokens_per_second, memory_bytes, resident_bytes, cache_tokens, cached_tokens, pace, counts,
    started_at, heartbeat_at)
VALUES (%(id)s, %(name)s, %(deployment)s, %(digest)s, %(engine)s, %(state)s, %(detail)s,
    %(state_since)s, %(loaded)s, %(desired_state)s, %(load_generation)s, %(slots)s, %(running)s,
    %(waiting)s, %(tokens_per_second)s, %(memory_bytes)s, %(resident_bytes)s, %(cache_tokens)s,
    %(cached_tokens)s, %(pace)s, %(counts)s, now(), now())
ON CONFLICT (name) DO UPDATE SET id = EXCLUDED.id, deployment_id = EXCLUDED.deployment_id,
    version_digest = EXCLUDED.version_digest, engine = EXCLUDED.engine, state = EXCLUDED.state,
    detail = EXCLUDED.detail, state_since = EXCLUDED.state_since, loaded = EXCLUDED.loaded,
    slots = EXCLUDED.slots, running = EXCLUDED.running, waiting = EXCLUDED.waiting,
    tokens_per_second = EXCLUDED.tokens_per_second, memory_bytes = EXCLUDED.memory_bytes,
    resident_bytes = EXCLUDED.resident_bytes, cache_tokens = EXCLUDED.cache_tokens,
    cached_tokens = EXCLUDED.cached_tokens, pace = EXCLUDED.pace, counts = EXCLUDED.counts,
    started_at = CASE WHEN inference_worker.id = EXCLUDED.id
                      THEN inference_worker.started_at ELSE now() END,
    heartbeat_at = now()
RETURNING desired_state, load_generation
"""

# A gateway that was alive and is missing at this many beats in a row has died.
_MISSED_BEATS: Final = 2


class Presence:
    """What the worker says of itself, written with each beat."""

    def __init__(self, row_id: UUID, name: str, deployment_id: UUID, engine: str) -> None:
        self.row: dict[str, Any] = {
            "id": row_id,
            "name": name,
            "deployment": deployment_id,
            "engine": engine,
            "digest": "",
            "state": WorkerState.LOADING.value,
            "state_since": datetime.now(UTC),
            "detail": "",
            "loaded": None,
            "desired_state": DesiredState.SERVING.value,
            "load_generation": 0,
            "slots": 0,
        }

    @property
    def state(self) -> str:
        return str(self.row["state"])

    def now(self, state: WorkerState, detail: str = "", **values: Any) -> None:
        if state.value != self.row["state"]:
            values["state_since"] = datetime.now(UTC)
        self.row.update(state=state.value, detail=detail[:500], **values)

    def hold(self, assignment: Assignment, slots: int) -> None:
        """The model is loaded, and this is what of."""
        self.row.update(
            engine=assignment.engine,
            digest=assignment.digest,
            loaded=Jsonb(assignment.loadable),
            slots=slots,
        )


class Heartbeat:
    """Beats until it is stopped.

    Args:
        figures: the engine's, at each beat.
        on_desired: what the worker's row wants of it.
        on_cancel: a running job's cancellation was asked for, or its gateway is gone.
        on_lost: a running job is no longer this worker's.
    """

    def __init__(
        self,
        url: str,
        client: redis.Redis,
        *,
        presence: Presence,
        running: Running,
        pace: Pace,
        counts: Counts,
        interval_seconds: float,
        lease_seconds: float,
        figures: Callable[[], dict[str, Any]],
        on_desired: Callable[[DesiredState, int], None],
        on_cancel: Callable[[RunningJob], None],
        on_lost: Callable[[RunningJob], None],
    ) -> None:
        self._url = url
        self._redis = client
        self._presence = presence
        self._running = running
        self._pace = pace
        self._counts = counts
        self._interval = interval_seconds
        self._lease_seconds = lease_seconds
        self._figures = figures
        self._on_desired = on_desired
        self._succeeded = False
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._connection: psycopg.Connection[Any] | None = None
        self._missed: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """One last beat, then the end."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            self._beat()
            if last:
                break
            self._stop.wait(self._interval)
        if self._connection is not None:
            self._connection.close()

    def _beat(self) -> None:
        # Read in this order: who says that it is drained has nothing running any more.
        said = dict(self._presence.row)
        jobs = self._running.all()
        try:
            still = self._renew(said, jobs)
        except psycopg.Error as fault:
            log.warning("heartbeat.failed", error=str(fault))
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        else:
            for job in jobs:
                cancel = still.get(job.claim.id)
                if cancel is None:
                    # It may have ended while the beat was under way: then it is not running here.
                    if job.ending is None and self._running.get(job.engine_id) is job:
                        self._on_lost(job)
                elif cancel:
                    self._on_cancel(job)
        self._look_for_gateways(jobs)

    def _renew(self, said: dict[str, Any], jobs: list[RunningJob]) -> dict[UUID, bool]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url, autocommit=True, application_name="worker-heartbeat", connect_timeout=5
            )
        row = {
            **said,
            **self._figures(),
            "running": len(jobs),
            "pace": self._pace.tokens_per_second,
            "counts": Jsonb(self._counts.row()),
        }
        self._register(self._connection, row)
        if not jobs:
            return {}
        cursor = claims.send_renewal(
            self._connection, [job.progress() for job in jobs], lease_seconds=self._lease_seconds
        )
        return claims.renewed(cursor)

    def _register(self, connection: psycopg.Connection[Any], row: dict[str, Any]) -> None:
        if not self._succeeded:
            taken = take_over(connection, deployment_id=row["deployment"], name=row["name"])
            if taken is not None:
                row["desired_state"], row["load_generation"] = taken
            self._succeeded = True
        desired = connection.execute(_REGISTER, row).fetchone()
        assert desired is not None
        # Kept, should the row be swept away while the database can't be reached.
        kept = self._presence.row
        kept["desired_state"], kept["load_generation"] = desired
        self._on_desired(DesiredState(desired[0]), desired[1])

    def _look_for_gateways(self, jobs: list[RunningJob]) -> None:
        """Cancels the jobs of gateways that have died: nobody waits for them any more."""
        gateways = sorted({job.claim.gateway for job in jobs} - {""})
        if not gateways:
            self._missed.clear()
            return
        try:
            alive = [bool(self._redis.exists(alive_key(g))) for g in gateways]
        except (redis.RedisError, OSError):
            return
        missed = {
            g: self._missed.get(g, 0) + 1
            for g, here in zip(gateways, alive, strict=True)
            if not here
        }
        self._missed = missed
        for job in jobs:
            if missed.get(job.claim.gateway, 0) >= _MISSED_BEATS:
                log.info("gateway.gone", gateway=job.claim.gateway, job_id=str(job.claim.id))
                self._on_cancel(job)
