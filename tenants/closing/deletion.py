"""The deletion of a tenant: bounded steps, each of which records what it erased as it erases it.

A step is one transaction. Killed in it, everything is as before it; killed after it, its count is
written. So whatever is killed, and however often, the end is the same, and every row is counted
once. The tenant's row is locked first in each: of two workers, one works.
"""

import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from django.utils import timezone

from audit.services import intent
from portal.core.actors import Context
from portal.core.tenancy import platform_scope
from tenants.closing import registry
from tenants.closing.certificate import Kept, issue, kept_records
from tenants.closing.registry import BATCH_ROWS, Eraser
from tenants.events import TenantsEvent
from tenants.models import ClosureStep, Tenant, TenantClosure, TenantDataKey
from tenants.models.closing import ClosureState
from tenants.models.tenant import TenantState

log = structlog.get_logger(__name__)

_REASON: Final = "a tenant is closed"
OPEN: Final = (ClosureState.CLOSING, ClosureState.DELETING)


@dataclass(frozen=True, slots=True)
class Step:
    """What one call of ``advance`` did; ``more`` says whether another has something to do now."""

    more: bool
    finished: bool = False


def work_on(tenant_id: UUID, *, seconds: float = 5.0, most: int = BATCH_ROWS) -> bool:
    """Takes steps for about so many seconds; whether the tenant was closed by the last one."""
    until = time.monotonic() + seconds
    while True:
        step = advance(tenant_id, most=most)
        if step.finished or not step.more or time.monotonic() >= until:
            return step.finished


def advance(tenant_id: UUID, *, most: int = BATCH_ROWS) -> Step:
    """One step: ends what runs, begins the deletion when its time has come, erases, or finishes.

    Args:
        most: rows that it erases at most.
    """
    context = Context.system("closing", tenant_id=tenant_id)
    with platform_scope(context, reason=_REASON):
        closure = _held(tenant_id)
        if closure is None:
            return Step(more=False)
        if closure.settled_at is None:
            return _settle(closure)
        if closure.state == ClosureState.CLOSING:
            return _begin(closure)
        try:
            for eraser in registry.erasers():
                if _erase(closure, eraser, most):
                    return Step(more=True)
        except registry.NotYet:
            return Step(more=False)
    return _finish(context, kept_records(context), most)


def _held(tenant_id: UUID) -> TenantClosure | None:
    """The open closure of a tenant that no other worker holds."""
    locked = Tenant.objects.select_for_update(skip_locked=True).filter(pk=tenant_id).exists()
    if not locked:
        return None
    return TenantClosure.objects.filter(tenant_id=tenant_id, state__in=OPEN).first()


def _settle(closure: TenantClosure) -> Step:
    left = registry.live_work(closure.tenant_id)
    if left:
        log.info("closing.waits", tenant_id=str(closure.tenant_id), live=left)
        return Step(more=False)
    closure.settled_at = timezone.now()
    closure.save(update_fields=["settled_at"])
    return Step(more=True)


def _begin(closure: TenantClosure) -> Step:
    now = timezone.now()
    if closure.delete_after > now:
        return Step(more=False)
    with intent(
        TenantsEvent.TENANT_DELETE,
        object_type="tenants.tenant",
        object_id=closure.tenant_id,
        reason=closure.reason,
        detail={"decided_by": closure.asked_by, "closure": str(closure.pk)},
    ):
        closure.state = ClosureState.DELETING
        closure.deletion_began_at = now
        closure.save(update_fields=["state", "deletion_began_at"])
    return Step(more=True)


def _erase(closure: TenantClosure, eraser: Eraser, most: int) -> bool:
    """One batch of one kind; False if nothing of it was left before."""
    step = ClosureStep.objects.filter(closure=closure, name=eraser.name).first()
    if step is not None and step.finished_at is not None:
        return False
    now = timezone.now()
    if step is None:
        step = ClosureStep(
            tenant_id=closure.tenant_id, closure=closure, name=eraser.name, began_at=now
        )
    erased = eraser.erase(closure.tenant_id, most)
    step.erased += erased
    step.finished_at = None if erased else now
    step.save()
    return True


def _finish(context: Context, kept: Kept, most: int) -> Step:
    """Destroys the data keys and issues the certificate, in one transaction.

    What somebody whose request began before the closing wrote after its step is erased first:
    the tenant's lock waits for rows that refer to it, and there can be no more behind it.
    """
    assert context.tenant_id is not None
    with platform_scope(context, reason=_REASON):
        closure = _held(context.tenant_id)
        if closure is None or closure.state != ClosureState.DELETING:
            return Step(more=False)
        for eraser in registry.erasers():
            late = eraser.erase(closure.tenant_id, most)
            if late:
                step = ClosureStep.objects.get(closure=closure, name=eraser.name)
                step.erased += late
                step.finished_at = None
                step.save(update_fields=["erased", "finished_at"])
                return Step(more=True)
        _close(closure, kept)
    log.info("tenant.closed", tenant_id=str(context.tenant_id))
    return Step(more=False, finished=True)


def _close(closure: TenantClosure, kept: Kept) -> None:
    tenant = Tenant.objects.get(pk=closure.tenant_id)
    closure.ended_at = timezone.now()
    certificate = issue(tenant, closure, kept)
    with intent(
        TenantsEvent.TENANT_CLOSED,
        object_type="tenants.tenant",
        object_id=tenant.pk,
        object_label=tenant.name,
        reason=closure.reason,
        detail={"certificate": str(certificate.pk), "sha256": certificate.sha256},
    ):
        TenantDataKey.objects.filter(tenant=tenant).delete()
        tenant.state = TenantState.CLOSED
        tenant.save(update_fields=["state"])
        closure.state = ClosureState.CLOSED
        closure.save(update_fields=["state", "ended_at"])
