"""The worker's heartbeat: leases renewed, watermarks recorded, cancellations noticed.

On a thread and a connection of its own, so that nothing else the worker does can make it miss.
"""

import threading
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import psycopg
import redis
import structlog

from inference.models.dispatch import WorkerState
from inference.returns import alive_key
from inference.worker import claims
from inference.worker.pace import Pace
from inference.worker.running import Running, RunningJob

log = structlog.get_logger(__name__)

_REGISTER: Final = """
INSERT INTO inference_worker (id, name, deployment_id, version_digest, engine, state, detail,
    slots, running, pace, started_at, heartbeat_at)
VALUES (%(id)s, %(name)s, %(deployment)s, %(digest)s, %(engine)s, %(state)s, %(detail)s,
    %(slots)s, %(running)s, %(pace)s, now(), now())
ON CONFLICT (name) DO UPDATE SET id = EXCLUDED.id, deployment_id = EXCLUDED.deployment_id,
    version_digest = EXCLUDED.version_digest, engine = EXCLUDED.engine, state = EXCLUDED.state,
    detail = EXCLUDED.detail, slots = EXCLUDED.slots, running = EXCLUDED.running,
    pace = EXCLUDED.pace, started_at = CASE WHEN inference_worker.id = EXCLUDED.id
                      THEN inference_worker.started_at ELSE now() END,
    heartbeat_at = now()
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
            "detail": "",
            "slots": 0,
            "running": 0,
        }

    def now(self, state: WorkerState, detail: str = "", **values: Any) -> None:
        self.row.update(state=state.value, detail=detail[:500], **values)


class Heartbeat:
    """Beats until it is stopped.

    Args:
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
        interval_seconds: float,
        lease_seconds: float,
        on_cancel: Callable[[RunningJob], None],
        on_lost: Callable[[RunningJob], None],
    ) -> None:
        self._url = url
        self._redis = client
        self._presence = presence
        self._running = running
        self._pace = pace
        self._interval = interval_seconds
        self._lease_seconds = lease_seconds
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
        jobs = self._running.all()
        try:
            still = self._renew(jobs)
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

    def _renew(self, jobs: list[RunningJob]) -> dict[UUID, bool]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url, autocommit=True, application_name="worker-heartbeat", connect_timeout=5
            )
        measured = {"running": len(jobs), "pace": self._pace.tokens_per_second}
        self._connection.execute(_REGISTER, {**self._presence.row, **measured})
        if not jobs:
            return {}
        cursor = claims.send_renewal(
            self._connection, [job.progress() for job in jobs], lease_seconds=self._lease_seconds
        )
        return claims.renewed(cursor)

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
