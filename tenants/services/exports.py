"""Exports of a tenant: asked for, looked at, fetched. An io worker makes them."""

import io
from typing import IO, Final, cast
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from audit.models import Category, Outcome
from audit.services import Event, intent, record
from portal.core.actors import Context
from portal.core.errors import Conflict, NotFound
from tenants.closing.files import data_key_of, is_being_erased, path_of
from tenants.closing.sealed import SealedReader
from tenants.events import TenantsEvent
from tenants.models import Tenant, TenantExport
from tenants.models.closing import ExportState
from tenants.permissions import Action, require
from tenants.services.tenants import tenant_or_platform_scope

_OBJECT: Final = "tenants.tenantexport"


def request_export(*, context: Context, tenant_id: UUID) -> TenantExport:
    """Asks for a new export of a tenant; it is made in the background, one at a time.

    Raises:
        Forbidden, NotFound.
        Conflict: the tenant's deletion has begun, or one is being made.
    """
    require(context, Action.TENANT_EXPORT)
    with tenant_or_platform_scope(context, tenant_id, reason="an export is asked for"):
        tenant = Tenant.objects.filter(pk=tenant_id).first()
        if tenant is None:
            raise NotFound("There is no such tenant.")
        if is_being_erased(tenant_id):
            raise Conflict("The tenant is deleted: there is nothing left to export.")
        export = TenantExport(
            tenant_id=tenant_id,
            asked_by_id=context.actor.id,
            asked_by=context.actor.label,
            asked_at=timezone.now(),
        )
        with intent(
            TenantsEvent.TENANT_EXPORT,
            object_type=_OBJECT,
            object_id=export.pk,
            object_label=tenant.name,
        ):
            _insert(export)
    return export


def _insert(export: TenantExport) -> None:
    try:
        with transaction.atomic():
            export.save(force_insert=True)
    except IntegrityError:
        raise Conflict("An export is being made; wait until it is ready.") from None


def newest_export(*, context: Context, tenant_id: UUID) -> TenantExport:
    """The export that was asked for last.

    Raises:
        Forbidden.
        NotFound: no such tenant, or none was asked for.
    """
    require(context, Action.TENANT_EXPORT)
    with tenant_or_platform_scope(context, tenant_id, reason="an export is looked at"):
        found = TenantExport.objects.filter(tenant_id=tenant_id).order_by("-asked_at").first()
    if found is None:
        raise NotFound("No export was asked for.")
    return found


def open_export(
    *, context: Context, tenant_id: UUID, export_id: UUID | None = None
) -> tuple[TenantExport, IO[bytes]]:
    """An export that is ready, the newest if none is named, and its zip file, open for reading.

    Every opening is recorded. What was altered on the disk ends the reading with an error.

    Raises:
        Forbidden.
        NotFound: no such tenant, or no file that is ready.
        InvalidCiphertext: the file is none of ours.
    """
    require(context, Action.TENANT_EXPORT)
    with tenant_or_platform_scope(context, tenant_id, reason="an export is fetched"):
        found = TenantExport.objects.filter(tenant_id=tenant_id, state=ExportState.READY)
        if export_id is not None:
            found = found.filter(pk=export_id)
        export = found.order_by("-asked_at").first()
        if export is None:
            raise NotFound("No export is ready: ask for one, or wait until it is made.")
        file = _open(export)
        event = Event(
            Category.ACCESS,
            TenantsEvent.TENANT_EXPORT_FETCH,
            Outcome.SUCCESS,
            object_type=_OBJECT,
            object_id=str(export.pk),
            detail={"sha256": export.sha256, "bytes": export.size},
        )
        record(event)
    return export, file


def _open(export: TenantExport) -> IO[bytes]:
    try:
        file = path_of(export).open("rb")
    except FileNotFoundError:
        raise NotFound("The export's file is gone: ask for a new one.") from None
    reader = SealedReader(file, data_key_of(export.tenant_id), export.pk)
    return cast("IO[bytes]", io.BufferedReader(reader))
