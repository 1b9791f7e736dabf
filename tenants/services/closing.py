"""Closing a tenant, taking that back, and checking the certificate at the end."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.utils import timezone
from psycopg import sql

from audit.services import intent
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import platform_scope
from tenants.closing import registry
from tenants.closing.certificate import Finding, canonical, check_file, kept_records
from tenants.events import TenantsEvent
from tenants.models import ApiKey, Tenant, TenantCertificate, TenantClosure
from tenants.models.closing import ClosureState
from tenants.models.tenant import TenantState
from tenants.permissions import Action, require
from tenants.services.checks import clean_text
from tenants.services.tenants import locked_tenant, tenant_or_platform_scope

_OBJECT: Final = "tenants.tenant"
MOST_GRACE_DAYS: Final = 365


def close_tenant(
    *,
    context: Context,
    tenant_id: UUID,
    name: str,
    reason: str,
    grace_days: int | None = None,
) -> TenantClosure:
    """Begins to close a tenant: keys are revoked at once, and jobs under way are cancelled.

    Nothing is deleted before the grace period is over; until then it can be reopened.

    Args:
        name: the tenant's name, typed again.
        grace_days: from 0 to 365; the installation's setting if it is None.

    Raises:
        Forbidden, NotFound.
        Invalid: naming the field that is wrong, such as a name that is not the tenant's.
        Conflict: it is closing or closed already.
    """
    require(context, Action.TENANT_CLOSE)
    why = clean_text(reason, "reason", most=200, least=1)
    days = env().closing_grace_days if grace_days is None else grace_days
    if not 0 <= days <= MOST_GRACE_DAYS:
        raise Invalid(f"'grace_days' must be from 0 to {MOST_GRACE_DAYS}.", param="grace_days")
    with platform_scope(replace(context, tenant_id=tenant_id), reason="a tenant is closed"):
        tenant = locked_tenant(tenant_id)
        if tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED):
            raise Conflict(f"The tenant is {tenant.state}; it can't be closed again.")
        if name.strip() != tenant.name:
            raise Invalid("'name' is not the tenant's name: type it exactly.", param="name")
        return _begin(context, tenant, why, days)


def _begin(context: Context, tenant: Tenant, reason: str, days: int) -> TenantClosure:
    """The closing itself, once it is decided; an approval by a second person belongs before it."""
    now = timezone.now()
    closure = TenantClosure(
        tenant=tenant,
        tenant_was=tenant.state,
        reason=reason,
        asked_by_id=context.actor.id,
        asked_by=context.actor.label,
        asked_at=now,
        delete_after=now + timedelta(days=days),
    )
    with intent(
        TenantsEvent.TENANT_CLOSE,
        object_type=_OBJECT,
        object_id=tenant.pk,
        object_label=tenant.name,
        reason=reason,
        detail={"closure": str(closure.pk), "delete_after": closure.delete_after},
    ):
        tenant.state = TenantState.CLOSING
        tenant.save(update_fields=["state"])
        closure.save(force_insert=True)
        ApiKey.objects.filter(tenant=tenant, revoked_at=None).update(
            revoked_at=now, revoked_reason="the tenant is closing"
        )
    return closure


def reopen_tenant(*, context: Context, tenant_id: UUID, reason: str) -> Tenant:
    """Takes a closing back, before its deletion has begun; the tenant is what it was before.

    Its keys stay revoked.

    Raises:
        Forbidden, NotFound, Invalid: no reason given.
        Conflict: it is not closing, or its deletion has begun.
    """
    require(context, Action.TENANT_CLOSE)
    why = clean_text(reason, "reason", most=200, least=1)
    with platform_scope(replace(context, tenant_id=tenant_id), reason="a tenant is reopened"):
        tenant = locked_tenant(tenant_id)
        closure = TenantClosure.objects.filter(
            tenant=tenant, state__in=[ClosureState.CLOSING, ClosureState.DELETING]
        ).first()
        if closure is None:
            raise Conflict(f"The tenant is {tenant.state}, not {TenantState.CLOSING.value}.")
        if closure.state != ClosureState.CLOSING:
            raise Conflict("Its deletion has begun, so it can't be reopened.")
        with intent(
            TenantsEvent.TENANT_REOPEN,
            object_type=_OBJECT,
            object_id=tenant.pk,
            object_label=tenant.name,
            reason=why,
        ):
            tenant.state = closure.tenant_was
            tenant.save(update_fields=["state"])
            closure.state = ClosureState.REOPENED
            closure.ended_at = timezone.now()
            closure.save(update_fields=["state", "ended_at"])
    return tenant


def verify_certificate(*, context: Context, content: bytes) -> list[Finding]:
    """Checks a certificate's file by itself, and against the database.

    Raises:
        Forbidden: the caller may not read tenants.
    """
    require(context, Action.TENANT_READ)
    document, findings = check_file(content)
    if document is None:
        return findings
    try:
        tenant_id = UUID(document["tenant"]["id"])
        ledger, audit = document["kept"]["ledger"], document["kept"]["audit"]
        boundary = (str(audit["below_transaction"]), str(audit["until"]))
    except (ValueError, KeyError, TypeError):
        return [*findings, Finding("it names a tenant and what was kept", passed=False)]
    inside = replace(context, tenant_id=tenant_id)
    findings += _against_rows(inside, tenant_id, document)
    if not all(finding.passed for finding in findings):
        # Its figures are not ours, so that there is nothing to compare with the database.
        return findings
    kept = kept_records(Context.system("certificate", tenant_id=tenant_id), boundary=boundary)
    for what, now, then in (("ledger", kept.ledger, ledger), ("audit trail", kept.audit, audit)):
        same = all(then.get(key) == value for key, value in now.items())
        findings.append(Finding(f"the {what} is the one that was kept", same))
    return findings


def _against_rows(context: Context, tenant_id: UUID, document: dict[str, Any]) -> list[Finding]:
    text = canonical(document).decode()
    with platform_scope(context, reason="a certificate is checked"):
        tenant = Tenant.objects.filter(pk=tenant_id).first()
        stored = TenantCertificate.objects.filter(
            tenant_id=tenant_id, sha256=hashlib.sha256(text.encode()).hexdigest()
        ).first()
        left = [table for table in _erased_tables() if _holds_rows(table, tenant_id)]
    return [
        Finding("the database keeps the same certificate", stored is not None
                and stored.document == text),
        Finding("the tenant is closed", tenant is not None and tenant.state == TenantState.CLOSED),
        Finding(f"nothing that was erased is there {' '.join(left)}".rstrip(), not left),
    ]  # fmt: skip


def _erased_tables() -> list[str]:
    tables = set(connection.introspection.table_names())
    return [e.name for e in registry.erasers() if e.name in tables] + [registry.DATA_KEYS]


def _holds_rows(table: str, tenant_id: UUID) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE tenant_id = %s)")
    with connection.cursor() as cursor:
        cursor.execute(statement.format(sql.Identifier(table)), [tenant_id])
        return bool(cursor.fetchone()[0])


def find_certificate(*, context: Context, tenant_id: UUID) -> TenantCertificate:
    """The certificate of a closed tenant.

    Raises:
        Forbidden: the caller may not read tenants.
        NotFound: no such tenant, another's, or not closed yet.
    """
    require(context, Action.TENANT_READ)
    with tenant_or_platform_scope(context, tenant_id, reason="a certificate is read"):
        found = TenantCertificate.objects.filter(tenant_id=tenant_id).order_by("-issued_at").first()
    if found is None:
        raise NotFound("There is no certificate: the tenant is not closed.")
    return found
