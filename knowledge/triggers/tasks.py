"""Celery tasks of triggers: thin shells."""

from functools import cache
from typing import Final

import structlog
from celery import shared_task

from knowledge.models import StreamEvent, Trigger, TriggerRun
from knowledge.triggers.keeping import drop_expired
from knowledge.triggers.matching import event_step, schedule_step
from knowledge.triggers.running import run_step
from knowledge.turns import Turns, Work
from portal.core.env import env

log = structlog.get_logger(__name__)

_DUE: Final = """
SELECT tenant_id, id FROM {table} WHERE {column} <= clock_timestamp() ORDER BY {column} LIMIT 100
"""
_WORK: Final = (
    Work(
        "trigger schedules",
        _DUE.format(table="knowledge_trigger", column="next_at"),
        schedule_step,
        Trigger,
        "next_at",
    ),
    Work(
        "trigger events",
        _DUE.format(table="knowledge_streamevent", column="wake_at"),
        event_step,
        StreamEvent,
    ),
    Work(
        "trigger runs",
        _DUE.format(table="knowledge_triggerrun", column="wake_at"),
        run_step,
        TriggerRun,
    ),
)
_SECONDS: Final = 0.8 / len(_WORK)


@cache
def _turns() -> tuple[Turns, ...]:
    return tuple(Turns(env().database_url("gateway"), work) for work in _WORK)


@shared_task(name="knowledge.run_triggers")
def run_triggers() -> None:
    """Looks at schedules that are due, at events, and takes steps of runs."""
    for turns in _turns():
        turns.take(seconds=_SECONDS)


@shared_task(name="knowledge.sweep_triggers")
def sweep_triggers() -> None:
    """Drops events, and what runs held, once they have been kept as long as they are to be."""
    dropped = drop_expired(env().database_url("gateway"))
    if any(dropped.values()):
        log.info("triggers.swept", **dropped)
