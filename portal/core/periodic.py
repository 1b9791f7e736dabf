"""When the tasks that run by the clock last succeeded: noted in the broker, for those who watch.

The broker may forget it; the next success is noted again.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from portal.core.metrics import Families, counter, gauge
from portal.core.resp import FAULTS, RespClient, RespLink

log = structlog.get_logger(__name__)

_SUCCEEDED: Final = "periodic:succeeded"
_FAILURES: Final = "periodic:failures"


def note_run(broker: RespClient, task: str, *, succeeded: bool) -> None:
    """Notes that a run of a task has ended; a broker that is away is no fault of the task's."""
    command = ("HSET", _SUCCEEDED, task, f"{time.time():.3f}")
    try:
        broker.call(*(command if succeeded else ("HINCRBY", _FAILURES, task, 1)))
    except FAULTS as fault:
        log.warning("periodic.unnoted", task=task, error=str(fault))


async def read_periodic(broker: RespLink, intervals: Mapping[str, float]) -> Families:
    """The figures of the tasks.

    Args:
        intervals: seconds between two runs, by task.

    Raises:
        OSError, hiredis.HiredisError: the broker is away.
    """
    succeeded = _pairs(await broker.call("HGETALL", _SUCCEEDED))
    failures = _pairs(await broker.call("HGETALL", _FAILURES))
    one = ("task",)
    return [
        gauge(
            "freehold_periodic_task_interval_seconds",
            "How often the task is to run.",
            one,
            [((task,), seconds) for task, seconds in intervals.items()],
        ),
        gauge(
            "freehold_periodic_task_last_success_timestamp_seconds",
            "When the task last succeeded; absent until it did, and after the broker lost its "
            "memory.",
            one,
            [((task,), succeeded[task]) for task in intervals if task in succeeded],
        ),
        counter(
            "freehold_periodic_task_failures",
            "Runs of the task that failed, since the broker was started.",
            one,
            [((task,), failures.get(task, 0.0)) for task in intervals],
        ),
    ]


def _pairs(reply: Iterable[bytes]) -> dict[str, float]:
    flat = iter(reply)
    return {name.decode(): float(value) for name, value in zip(flat, flat, strict=True)}
