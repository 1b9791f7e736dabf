"""The making of an export, by an io worker: one zip of one moment, in a file only we can read.

Nothing is held in memory but a batch of rows. What a killed worker left is made anew by the next
one, up to three times.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import structlog
from django.db import DatabaseError, connection
from django.utils import timezone

from audit.models import Category, Outcome
from audit.services import Event, record
from portal.core.actors import Context
from portal.core.database_roles import database_roles
from portal.core.env import env
from portal.core.tenancy import role_scope, tenant_scope
from portal.core.tenancy.snapshots import tenant_snapshot
from tenants.closing.files import data_key_of, is_being_erased, path_of, unlink_files
from tenants.closing.registry import ExportPart, export_parts
from tenants.closing.sealed import SealedWriter
from tenants.events import TenantsEvent
from tenants.models import TenantExport
from tenants.models.closing import ExportState

log = structlog.get_logger(__name__)

FETCH_ROWS: Final = 2000
"""Rows that are in memory at once."""

FORMAT: Final = "freehold.tenant-export/1"
MANIFEST: Final = "manifest.json"
_MOST_ATTEMPTS: Final = 3
_LEASE: Final = timedelta(minutes=2)
_TELL_EVERY: Final = timedelta(seconds=1)


def make_export(tenant_id: UUID, export_id: UUID) -> bool:
    """Makes an export that waits, or that a worker left; whether this call finished it.

    Raises:
        OSError: the disk refused; the export is tried again once its lease has run out.
    """
    context = Context.system("export", tenant_id=tenant_id)
    export = _claim(context, export_id)
    if export is None:
        return False
    unlink_files(tenant_id, export_id)
    target = path_of(export)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = target.with_suffix(f".{export.attempts}")
    try:
        with _Progress(context, export) as progress:
            manifest, sha256, size = _write(context, export, written, progress)
        written.replace(target)
    finally:
        written.unlink(missing_ok=True)
    if _finish(context, export, manifest, sha256, size):
        return True
    # Its tenant was deleted meanwhile, or its lease ran out and another worker has it.
    with tenant_scope(context):
        if TenantExport.objects.get(pk=export.pk).state == ExportState.DELETED:
            unlink_files(tenant_id, export_id)
    return False


def expire_export(tenant_id: UUID, export_id: UUID) -> None:
    """Deletes the file of an export whose time is over."""
    context = Context.system("export", tenant_id=tenant_id)
    with tenant_scope(context):
        export = TenantExport.objects.select_for_update().filter(pk=export_id).first()
        if export is None or export.expires_at is None or export.expires_at > timezone.now():
            return
        unlink_files(tenant_id, export_id)
        export.state = ExportState.DELETED
        export.save(update_fields=["state"])
        _record(context, TenantsEvent.TENANT_EXPORT_EXPIRE, export)


def _claim(context: Context, export_id: UUID) -> TenantExport | None:
    with tenant_scope(context):
        export = (
            TenantExport.objects.select_for_update(skip_locked=True)
            .filter(pk=export_id, state__in=[ExportState.WAITING, ExportState.RUNNING])
            .first()
        )
        now = timezone.now()
        if export is None or (export.lease_until is not None and export.lease_until > now):
            return None
        if is_being_erased(export.tenant_id) or export.attempts >= _MOST_ATTEMPTS:
            unlink_files(export.tenant_id, export.pk)
            export.state = ExportState.FAILED
            export.save(update_fields=["state"])
            _record(context, TenantsEvent.TENANT_EXPORT_MAKE, export, Outcome.FAILURE)
            return None
        export.state = ExportState.RUNNING
        export.attempts += 1
        export.lease_until = now + _LEASE
        export.rows_done, export.rows_total = 0, None
        export.save()
    return export


def _finish(
    context: Context, export: TenantExport, manifest: dict[str, Any], sha256: str, size: int
) -> bool:
    now = timezone.now()
    with tenant_scope(context):
        mine = TenantExport.objects.filter(
            pk=export.pk, state=ExportState.RUNNING, attempts=export.attempts
        )
        ready = mine.update(
            state=ExportState.READY,
            part="",
            lease_until=None,
            rows_done=manifest["rows"],
            rows_total=manifest["rows"],
            ready_at=now,
            expires_at=now + timedelta(hours=env().export_keep_hours),
            sha256=sha256,
            size=size,
        )
        if not ready:
            return False
        detail = {"sha256": sha256, "bytes": size, "rows": manifest["rows"]}
        _record(context, TenantsEvent.TENANT_EXPORT_MAKE, export, detail=detail)
    log.info("export.made", export_id=str(export.pk), bytes=size, rows=manifest["rows"])
    return True


def _record(
    context: Context,
    action: TenantsEvent,
    export: TenantExport,
    outcome: Outcome = Outcome.SUCCESS,
    detail: dict[str, Any] | None = None,
) -> None:
    event = Event(
        Category.ACCESS,
        action,
        outcome,
        object_type="tenants.tenantexport",
        object_id=str(export.pk),
        detail=detail,
    )
    record(event, context=context)


def _write(
    context: Context, export: TenantExport, path: Path, progress: "_Progress"
) -> tuple[dict[str, Any], str, int]:
    """Writes the whole file; returns its manifest, and the zip's SHA-256 and size."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with tenant_snapshot(context), os.fdopen(descriptor, "wb") as file:
        sealed = SealedWriter(file, data_key_of(export.tenant_id), export.pk)
        progress.total = sum(_count(context, part) for part in export_parts())
        with zipfile.ZipFile(sealed, "w", zipfile.ZIP_DEFLATED) as archive:
            files = [_add(context, archive, part, progress) for part in export_parts()]
            manifest = {
                "format": FORMAT,
                "tenant_id": str(export.tenant_id),
                "export_id": str(export.pk),
                "rows": sum(entry["rows"] for entry in files),
                "files": files,
            }
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        sealed.finish()
        file.flush()
        os.fsync(descriptor)
    return manifest, sealed.sha256, sealed.size


def _add(
    context: Context, archive: zipfile.ZipFile, part: ExportPart, progress: "_Progress"
) -> dict[str, Any]:
    """One file of the zip; returns its line of the manifest."""
    digest, size, rows = hashlib.sha256(), 0, 0
    with archive.open(part.name, "w", force_zip64=True) as entry:
        for batch in _batches(context, part):
            text = "".join(f"{line}\n" for line in batch).encode()
            entry.write(text)
            digest.update(text)
            size += len(text)
            rows += len(batch)
            progress.add(part.name, len(batch))
    return {"name": part.name, "rows": rows, "bytes": size, "sha256": digest.hexdigest()}


def _batches(context: Context, part: ExportPart) -> Iterator[list[str]]:
    """A part's rows as JSON texts, from a cursor on the server, a batch at a time."""
    statement = f"SELECT to_jsonb(r)::text FROM ({part.query}) r"
    with _reading(context, part), connection.chunked_cursor() as cursor:
        cursor.execute(statement, {"tenant": context.tenant_id})
        while rows := cursor.fetchmany(FETCH_ROWS):
            yield [row[0] for row in rows]


def _count(context: Context, part: ExportPart) -> int:
    with _reading(context, part), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM ({part.query}) r",
            {"tenant": context.tenant_id},
        )
        return int(cursor.fetchone()[0])


def _reading(context: Context, part: ExportPart) -> Any:
    if part.audit:
        return role_scope(context, database_roles().audit_reader)
    return tenant_scope(context)


def _close_connection() -> None:
    """Closes this thread's connection: the name stands for another one in each thread."""
    connection.close()


class _Progress:
    """Tells how far an export is, over a connection of its own, and keeps its lease by that."""

    def __init__(self, context: Context, export: TenantExport) -> None:
        self._context, self._export = context, export
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export-progress")
        self._told = timezone.now()
        self._running: Future[None] | None = None
        self._done = 0
        self.total: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.submit(_close_connection)
        self._thread.shutdown(wait=True)

    def add(self, part: str, rows: int) -> None:
        """So many more rows of a part are written."""
        self._done += rows
        now = timezone.now()
        idle = self._running is None or self._running.done()
        if idle and now - self._told >= _TELL_EVERY:
            self._told = now
            self._running = self._thread.submit(self._tell, part, self._done)

    def _tell(self, part: str, done: int) -> None:
        mine = TenantExport.objects.filter(
            pk=self._export.pk, state=ExportState.RUNNING, attempts=self._export.attempts
        )
        try:
            with tenant_scope(self._context):
                mine.update(
                    part=part,
                    rows_done=done,
                    rows_total=self.total,
                    lease_until=timezone.now() + _LEASE,
                )
        except DatabaseError as fault:
            log.warning("export.untold", export_id=str(self._export.pk), error=str(fault))
