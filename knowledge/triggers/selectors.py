"""Reads of triggers and their runs; each runs inside the caller's scope."""

from uuid import UUID

from django.db.models import Count, Max, Q, QuerySet

from knowledge.models import Trigger, TriggerRun, TriggerRunState
from portal.core.errors import NotFound


def triggers() -> QuerySet[Trigger]:
    """The triggers of the scope's tenant, each with how its runs went."""
    return Trigger.objects.select_related("app").annotate(
        run_count=Count("runs"),
        failed_count=Count("runs", filter=Q(runs__state=TriggerRunState.FAILED)),
        alert_count=Count("runs", filter=Q(runs__alert=True)),
        last_run_at=Max("runs__created_at"),
    )


def get_trigger(trigger_id: UUID) -> Trigger:
    """One trigger.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = triggers().filter(pk=trigger_id).first()
    if found is None:
        raise NotFound("There is no such trigger.")
    return found


def runs() -> QuerySet[TriggerRun]:
    """The runs of the scope's tenant, newest first, without what they hold."""
    return TriggerRun.objects.select_related("trigger").defer("sealed").order_by("-id")


def get_run(run_id: UUID) -> TriggerRun:
    """One run with what it holds.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = TriggerRun.objects.select_related("trigger__app").filter(pk=run_id).first()
    if found is None:
        raise NotFound("There is no such run.")
    return found
