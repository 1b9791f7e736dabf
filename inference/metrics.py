"""The queues and the workers, told to Prometheus from their rows in PostgreSQL.

Read by a gateway as ``portal_gateway``. Of each queue no more than so many jobs are looked at,
in fair order and through the partial index that claiming uses: a long queue is no slow scrape.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final
from uuid import UUID

import psycopg

from inference.backlog import WORKER_SECONDS, Backlog
from inference.models.dispatch import WorkerState
from inference.models.jobs import JobState
from portal.core.metrics import Families, Labels, counter, gauge

MOST_JOBS: Final = 10_000
MOST_WORKERS: Final = 1000

QUEUES: Final = f"""
SELECT d.id, d.name, d.enabled, q.waiting, q.oldest
  FROM inference_deployment d
 CROSS JOIN LATERAL (
       SELECT count(*) AS waiting,
              coalesce(extract(epoch FROM clock_timestamp() - min(admitted_at)), 0)::float AS oldest
         FROM (SELECT j.admitted_at FROM inference_job j
                WHERE j.deployment_id = d.id AND j.state = {JobState.QUEUED.value}
                ORDER BY j.start_tag, j.id LIMIT {MOST_JOBS}) waiting) q
 ORDER BY d.name
"""

RUNNING: Final = f"""
SELECT deployment_id, count(*)
  FROM (SELECT deployment_id FROM inference_job
         WHERE state = {JobState.RUNNING.value} ORDER BY lease_until LIMIT {MOST_JOBS}) running
 GROUP BY deployment_id
"""

# A worker that has stopped in order is no news.
WORKERS: Final = f"""
SELECT d.name, w.name, w.state, w.slots, w.running, w.pace,
       extract(epoch FROM clock_timestamp() - w.heartbeat_at)::float,
       extract(epoch FROM w.started_at)::float, w.counts, w.waiting, w.tokens_per_second,
       w.memory_bytes, w.resident_bytes, w.cache_tokens, w.cached_tokens
  FROM inference_worker w JOIN inference_deployment d ON d.id = w.deployment_id
 WHERE w.state <> '{WorkerState.STOPPED.value}' AND w.heartbeat_at > now() - interval '1 hour'
 ORDER BY w.heartbeat_at DESC LIMIT {MOST_WORKERS}
"""

_STATES: Final = [s.value for s in WorkerState if s != WorkerState.STOPPED]


@dataclass(frozen=True, slots=True)
class _Worker:
    """A row of ``WORKERS``; times in seconds."""

    deployment: str
    name: str
    state: str
    slots: int
    running: int
    pace: float | None
    heartbeat_age: float
    started_at: float
    counts: Mapping[str, Any] | None
    waiting: int
    tokens_per_second: float | None
    memory_bytes: int
    resident_bytes: int
    cache_tokens: int
    cached_tokens: int

    @property
    def labels(self) -> Labels:
        return (self.deployment, self.name)

    @property
    def heard(self) -> bool:
        return self.heartbeat_age < WORKER_SECONDS


async def read_dispatch(
    connection: psycopg.AsyncConnection[Any], backlogs: Mapping[UUID, Backlog]
) -> Families:
    """The figures of all queues and workers.

    Args:
        backlogs: of the deployments where something waits.

    Raises:
        psycopg.Error: the database is away.
    """
    found: list[list[Any]] = []
    for query in (QUEUES, RUNNING, WORKERS):
        cursor = await connection.execute(query)
        found.append(await cursor.fetchall())
    queues, running, rows = found
    workers = [_Worker(*row) for row in rows]
    return [
        *_queue_families(queues, dict(running), backlogs, workers),
        *_worker_families(workers),
        *_engine_families(workers),
        *_count_families([w for w in workers if w.counts is not None]),
    ]


def _queue_families(
    queues: Sequence[Any],
    running: Mapping[UUID, int],
    backlogs: Mapping[UUID, Backlog],
    workers: Iterable[_Worker],
) -> Families:
    drains = {name: _drain(backlogs.get(id_), waiting) for id_, name, _, waiting, _ in queues}
    ready = [w.deployment for w in workers if w.heard and w.state == WorkerState.READY]
    one = ("deployment",)
    return [
        gauge(
            "freehold_deployment_enabled",
            "1 if calls are admitted to the deployment.",
            one,
            [((name,), float(enabled)) for _, name, enabled, _, _ in queues],
        ),
        gauge(
            "freehold_deployment_ready_workers",
            "Workers of the deployment that are ready and were heard of in the last ten seconds.",
            one,
            [((name,), ready.count(name)) for _, name, *_ in queues],
        ),
        gauge(
            "freehold_queue_waiting_jobs",
            f"Jobs that wait for the deployment; {MOST_JOBS} stands for that and more.",
            one,
            [((name,), waiting) for _, name, _, waiting, _ in queues],
        ),
        gauge(
            "freehold_queue_running_jobs",
            "Jobs of the deployment that are claimed and have not ended.",
            one,
            [((name,), running.get(id_, 0)) for id_, name, *_ in queues],
        ),
        gauge(
            "freehold_queue_oldest_wait_seconds",
            "How long the oldest of those jobs has waited since its admission; 0 if none waits.",
            one,
            [((name,), oldest) for _, name, _, _, oldest in queues],
        ),
        gauge(
            "freehold_queue_drain_seconds",
            "How long it takes to work off what waits; absent while the workers' pace is unknown.",
            one,
            [((name,), drain) for name, drain in drains.items() if drain is not None],
        ),
    ]


def _drain(backlog: Backlog | None, waiting: int) -> float | None:
    if backlog is not None:
        return backlog.wait_seconds(inf)
    return None if waiting else 0.0


def _worker_families(workers: Sequence[_Worker]) -> Families:
    both = ("deployment", "worker")
    return [
        gauge(
            "freehold_worker_up",
            "1 if the worker is ready and was heard of in the last ten seconds.",
            both,
            [(w.labels, float(w.heard and w.state == WorkerState.READY)) for w in workers],
        ),
        gauge(
            "freehold_worker_state",
            "1 for the state that the worker last told of itself, 0 for the others.",
            (*both, "state"),
            [((*w.labels, state), float(w.state == state)) for w in workers for state in _STATES],
        ),
        gauge(
            "freehold_worker_slots",
            "Jobs that the worker can run at once.",
            both,
            [(w.labels, w.slots) for w in workers],
        ),
        gauge(
            "freehold_worker_running_jobs",
            "Jobs that the worker runs.",
            both,
            [(w.labels, w.running) for w in workers],
        ),
        gauge(
            "freehold_worker_pace_tokens_per_second",
            "Reserved tokens a second while every slot was taken; absent until it was.",
            both,
            [(w.labels, w.pace) for w in workers if w.pace is not None],
        ),
        gauge(
            "freehold_worker_heartbeat_age_seconds",
            "Since the worker was last heard of; its row goes an hour after.",
            both,
            [(w.labels, w.heartbeat_age) for w in workers],
        ),
        gauge(
            "freehold_worker_start_timestamp_seconds",
            "When the worker was started, in seconds since 1970.",
            both,
            [(w.labels, w.started_at) for w in workers],
        ),
    ]


def _engine_families(workers: Sequence[_Worker]) -> Families:
    both = ("deployment", "worker")
    return [
        gauge(
            "freehold_worker_engine_waiting_jobs",
            "Claimed jobs that wait inside the engine for room.",
            both,
            [(w.labels, w.waiting) for w in workers],
        ),
        gauge(
            "freehold_worker_tokens_per_second",
            "Tokens that the engine generated a second, over about five seconds; absent while no "
            "model is loaded.",
            both,
            [(w.labels, w.tokens_per_second) for w in workers if w.tokens_per_second is not None],
        ),
        gauge(
            "freehold_worker_resident_bytes",
            "Main memory of the worker and its engine's process.",
            both,
            [(w.labels, w.resident_bytes) for w in workers],
        ),
        gauge(
            "freehold_worker_engine_memory_bytes",
            "What weights and cache take on the engine's device; absent where it can't tell.",
            both,
            [(w.labels, w.memory_bytes) for w in workers if w.memory_bytes],
        ),
        gauge(
            "freehold_worker_cache_tokens",
            "Tokens that the key-value cache has room for; absent where the engine can't tell.",
            both,
            [(w.labels, w.cache_tokens) for w in workers if w.cache_tokens],
        ),
        gauge(
            "freehold_worker_cached_tokens",
            "Tokens of the key-value cache that are taken; absent where the engine can't tell.",
            both,
            [(w.labels, w.cached_tokens) for w in workers if w.cache_tokens],
        ),
    ]


def _count_families(workers: Sequence[_Worker]) -> Families:
    both = ("deployment", "worker")
    # A worker of another release may count other things.
    counted = [(w.labels, w.counts or {}) for w in workers]
    return [
        counter(
            "freehold_worker_claims",
            "Jobs that the worker has claimed.",
            both,
            [(labels, counts.get("claims", 0)) for labels, counts in counted],
        ),
        counter(
            "freehold_worker_jobs_ended",
            "Jobs that the worker has ended, by state.",
            (*both, "state"),
            [
                ((*labels, state), jobs)
                for labels, counts in counted
                for state, jobs in counts.get("ended", {}).items()
            ],
        ),
        counter(
            "freehold_worker_prompt_tokens",
            "Prompt tokens charged for those jobs.",
            both,
            [(labels, counts.get("prompt_tokens", 0)) for labels, counts in counted],
        ),
        counter(
            "freehold_worker_completion_tokens",
            "Completion tokens charged for those jobs.",
            both,
            [(labels, counts.get("completion_tokens", 0)) for labels, counts in counted],
        ),
    ]
