"""How a run ends: written down, told to the trail when it changes, and the next one put down."""

from datetime import datetime
from typing import Final
from uuid import UUID

from django.utils import timezone

from audit.models import Outcome
from knowledge.models import DocumentSource, RunState, SourceRun
from knowledge.schedules import next_time
from knowledge.sources.events import SourceEvent
from knowledge.trail import record_about
from tenants.models import Tenant

RUNS_KEPT: Final = 100


def end_run(source: DocumentSource, run_id: UUID, state: RunState, error: str = "") -> None:
    """Ends a run of a source that is locked; the source says how it went and when it runs next."""
    now = timezone.now()
    run = SourceRun.objects.get(pk=run_id)
    run.state, run.error, run.ended_at = state, error[:500], now
    run.save(update_fields=["state", "error", "ended_at"])
    was = source.problem
    source.last_run_at, source.problem = now, run.error
    if state == RunState.DONE:
        source.empty_allowed = False
        if isinstance(run.position, dict):
            # Of a database: the newest value of the column that grows.
            source.last_key = run.position["high"]
        if run.full:
            source.full_wanted, source.last_full_at = False, now
    source.wake_at = due(source, now)
    source.save()
    if bool(was) != bool(source.problem):
        _tell(source, run)
    _forget_old(source)


def due(source: DocumentSource, after: datetime) -> datetime | None:
    """When a source runs next by its schedule."""
    if source.paused or not source.schedule:
        return None
    zone = Tenant.objects.values_list("time_zone", flat=True).get(pk=source.tenant_id)
    return next_time(source.schedule, after=after, zone=zone)


def _tell(source: DocumentSource, run: SourceRun) -> None:
    failed = bool(source.problem)
    record_about(
        SourceEvent.FAIL if failed else SourceEvent.RECOVER,
        source,
        Outcome.FAILURE if failed else Outcome.SUCCESS,
        detail={"run": str(run.pk)},
    )


def _forget_old(source: DocumentSource) -> None:
    runs = SourceRun.objects.filter(source_id=source.pk).order_by("-id")
    oldest = runs.values_list("id", flat=True)[RUNS_KEPT : RUNS_KEPT + 1].first()
    if oldest is not None:
        SourceRun.objects.filter(source_id=source.pk, id__lte=oldest).delete()
