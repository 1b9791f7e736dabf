"""The steps of batches: which batch is due, and what the next step of it is.

Messages say nothing: what there is to do stands in PostgreSQL. A step locks its batch's row, so
several workers can take steps at once and none takes another's; a batch whose worker is gone is
due again at once.
"""

import time
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from django.db import DatabaseError
from django.utils import timezone

from inference.batches import running, store
from inference.batches.lines import LineFault
from inference.batches.results import fault_object
from inference.batches.running import Progress
from inference.batches.validation import Validation
from inference.models import LIVE_BATCH_STATES, Batch, BatchLine, BatchState
from portal.core.actors import Context
from portal.core.crypto import InvalidCiphertext
from portal.core.env import env
from portal.core.tenancy import tenant_scope

log = structlog.get_logger(__name__)

_LIVE: Final = f"ARRAY{[state.value for state in LIVE_BATCH_STATES]}"

# The row's tenant is not known before: the control plane, who takes the steps, sees one alone.
_DUE: Final = f"""
SELECT tenant_id, id FROM inference_batch
 WHERE wake_at <= clock_timestamp() AND state = ANY({_LIVE})
 ORDER BY wake_at LIMIT 100
"""
_AFTER_FAULT_SECONDS: Final = 10.0


def run_due(connection: psycopg.Connection[Any], *, seconds: float) -> int:
    """Takes steps of batches that are due, for about so many seconds; how many it took.

    Args:
        connection: of ``portal_gateway``, who sees the batches of all tenants.
    """
    until = time.monotonic() + seconds
    taken = 0
    while True:
        before = taken
        for tenant_id, batch_id in connection.execute(_DUE).fetchall():
            if time.monotonic() >= until:
                return taken
            taken += take_step(tenant_id, batch_id)
        if taken == before:
            return taken


def take_step(tenant_id: UUID, batch_id: UUID) -> bool:
    """Takes the next step of a batch; whether there was one and nobody else was at it."""
    context = Context.system("batches", tenant_id=tenant_id)
    try:
        with tenant_scope(context):
            batch = _locked(batch_id)
            if batch is None:
                return False
            _step(batch)
    except DatabaseError as fault:
        log.error("batch.step_failed", batch_id=str(batch_id), error=type(fault).__name__)
        _put_off(context, batch_id)
    return True


def _locked(batch_id: UUID) -> Batch | None:
    due = Batch.objects.filter(
        pk=batch_id, state__in=LIVE_BATCH_STATES, wake_at__lte=timezone.now()
    )
    return due.select_for_update(skip_locked=True, no_key=True).first()


def _put_off(context: Context, batch_id: UUID) -> None:
    """A batch whose step fails again and again must not hold up the others."""
    with tenant_scope(context):
        later = timezone.now() + timedelta(seconds=_AFTER_FAULT_SECONDS)
        Batch.objects.filter(pk=batch_id).update(wake_at=later)


def _step(batch: Batch) -> None:
    progress = Progress()
    try:
        _advance(batch, progress)
    except InvalidCiphertext as fault:
        log.error("batch.unreadable", batch_id=str(batch.id), error=fault.message)
        _give_up(batch)
    batch.wake_at = progress.due()
    batch.save()


def _give_up(batch: Batch) -> None:
    """What it needs can't be read: nothing more is run, and what is there is handed out."""
    if batch.outcome is not None:
        running.end(batch)
        return
    message = "The input file can't be read any more."
    batch.errors.append(fault_object(LineFault("input_unreadable", message)))
    running.start_ending(batch, BatchState.FAILED)


def _advance(batch: Batch, progress: Progress) -> None:
    if batch.state == BatchState.CANCELLING and batch.outcome is None:
        running.start_ending(batch, BatchState.CANCELLED)
    elif batch.outcome is None and batch.expires_at <= timezone.now():
        running.start_ending(batch, BatchState.EXPIRED)
    if batch.outcome is not None:
        _bring_to_its_end(batch, progress)
    elif batch.state == BatchState.VALIDATING:
        Validation(batch).step()
    else:
        _go_on(batch, progress)


def _go_on(batch: Batch, progress: Progress) -> None:
    running.collect(batch)
    under_way = store.count_running(batch)
    if under_way < env().batch_in_flight:
        under_way += running.feed(batch, under_way, progress)
    if batch.outcome is None and batch.completed + batch.failed == batch.total:
        running.start_ending(batch, BatchState.COMPLETED)
    elif under_way:
        progress.rest(running.JOBS_REST)


def _bring_to_its_end(batch: Batch, progress: Progress) -> None:
    if batch.in_progress_at is None:
        # Nothing of it was run, and what it asks for may not have been read to the end.
        BatchLine.objects.filter(tenant_id=batch.tenant_id, batch_id=batch.id).delete()
        batch.total = 0
    running.collect(batch)
    if running.drop_waiting(batch):
        return
    if batch.completed + batch.failed == batch.total:
        running.end(batch)
        return
    store.cancel_running(batch)
    progress.rest(running.JOBS_REST)
