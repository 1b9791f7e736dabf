"""What becomes of what went wrong: it is said in words, and tried again later and later."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from django.utils import timezone

from audit.models import Outcome
from knowledge.dify import errors
from knowledge.models import Connection, RemoteObject, Sync, SyncState
from knowledge.models.sync import MOST_ERROR_CHARS
from knowledge.sync.events import SyncEvent
from knowledge.sync.lease import Lease
from knowledge.trail import record_about
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

STOPS: Final = (
    errors.AddressNotAllowed,
    errors.Busy,
    errors.CertificateRefused,
    errors.Down,
    errors.KeyRefused,
    errors.NotDify,
    errors.TimedOut,
    errors.Unreachable,
)
"""Faults that another call would meet as well: the run ends with them."""
_SOON: Final = timedelta(seconds=1)
_MOST_REST_SECONDS: Final = 600
_MOST_CONNECTION_REST_SECONDS: Final = 60
_PATIENCE: Final = 3


def backoff(failures: int, most: int = _MOST_REST_SECONDS) -> timedelta:
    """How long to rest after so many failures in a row: 1, 2, 4 seconds and so on."""
    return timedelta(seconds=min(2 ** min(failures - 1, 16), most))


def note_object_failure(lease: Lease, link: RemoteObject, refusal: PortalError) -> None:
    """Writes down that a step of an object failed; others go on."""
    now = timezone.now()
    with lease.scope() as sync:
        if isinstance(refusal, errors.StillProcessing):
            link.next_at = now + _SOON
            link.save(update_fields=["next_at"])
            return
        if isinstance(refusal, errors.Missing):
            # It, or what it stands in, is not there: only a look tells which.
            Sync.objects.filter(pk=sync.pk, observe_at__gt=now).update(observe_at=now)
        said = isinstance(refusal, errors.Refused) or not isinstance(refusal, errors.DifyFault)
        if said:
            # Refused is not done, so there is nothing to look for.
            link.asking = []
        link.attempts = min(link.attempts + 1, 1000)
        rest = backoff(link.attempts)
        if refusal.retry_after:
            rest = max(rest, timedelta(seconds=refusal.retry_after))
        link.next_at = now + rest
        link.error_code = refusal.error_code[:60]
        link.error = refusal.message[:MOST_ERROR_CHARS]
        if link.state != SyncState.INDEXING and (said or link.attempts >= _PATIENCE):
            link.state = SyncState.FAILED
        link.save()


def note_connection_failure(lease: Lease, fault: errors.DifyFault) -> None:
    """Writes down why nothing goes on; what there is to do waits where it stands."""
    now = timezone.now()
    with lease.scope() as sync:
        first = sync.failing_since is None
        sync.failures = min(sync.failures + 1, 1000)
        rest = backoff(sync.failures, _MOST_CONNECTION_REST_SECONDS)
        if fault.retry_after:
            rest = max(rest, timedelta(seconds=fault.retry_after))
        sync.due_at, sync.lease_until = now + rest, None
        sync.failing_since = sync.failing_since or now
        sync.error_code, sync.error = fault.error_code, fault.message[:MOST_ERROR_CHARS]
        sync.save()
        if first:
            _tell(SyncEvent.FAIL, sync.connection, Outcome.FAILURE, fault.error_code)


def note_end(lease: Lease, due_at: datetime) -> None:
    """Gives the lease back; the next run is due then, or earlier if somebody woke it meanwhile."""
    with lease.scope() as sync:
        recovered = sync.failing_since is not None
        sync.due_at = min(due_at, sync.observe_at, sync.due_at)
        sync.lease_until, sync.failing_since, sync.failures = None, None, 0
        sync.error_code = sync.error = ""
        sync.save()
        if recovered:
            _tell(SyncEvent.RECOVER, sync.connection, Outcome.SUCCESS, "")


def _tell(event: SyncEvent, connection: Connection, outcome: Outcome, reason: str) -> None:
    record_about(event, connection, outcome, reason=reason)
    log.info(event.value, connection_id=str(connection.pk), problem=reason)
