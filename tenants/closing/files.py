"""Where the files of exports lie, what opens them, and how they go."""

from pathlib import Path
from uuid import UUID

from django.utils import timezone

from portal.core.crypto import Keyring
from portal.core.env import env
from tenants.models import TenantClosure, TenantDataKey, TenantExport
from tenants.models.closing import ClosureState, ExportState


def folder_of(tenant_id: UUID) -> Path:
    """The folder of a tenant's export files; it need not exist."""
    return env().freehold_data_dir / "exports" / str(tenant_id)


def path_of(export: TenantExport) -> Path:
    """The file of an export, encrypted under the tenant's data key."""
    return folder_of(export.tenant_id) / f"{export.pk}.zip.sealed"


def data_key_of(tenant_id: UUID) -> bytes:
    """The newest data key of a tenant that the open scope sees.

    Raises:
        TenantDataKey.DoesNotExist: it was destroyed.
        InvalidCiphertext: the key-encryption key is missing.
    """
    row = TenantDataKey.objects.filter(tenant_id=tenant_id).latest("version")
    keyring = Keyring.parse(env().encryption_keys.get_secret_value())
    return keyring.unwrap(bytes(row.wrapped), context=tenant_id.bytes)


def is_being_erased(tenant_id: UUID) -> bool:
    """Whether a tenant's deletion has begun: nothing of it is written to the disk any more."""
    return TenantClosure.objects.filter(
        tenant_id=tenant_id, state__in=[ClosureState.DELETING, ClosureState.CLOSED]
    ).exists()


def unlink_files(tenant_id: UUID, export_id: UUID | None = None) -> None:
    """Deletes the files of one export, half-written ones too; of all exports if none is named."""
    folder = folder_of(tenant_id)
    for file in folder.glob(f"{export_id or ''}*"):
        file.unlink(missing_ok=True)
    if export_id is None and folder.is_dir():
        folder.rmdir()


def erase_files(tenant_id: UUID, most: int) -> int:
    """Erases the export files of a tenant; returns how many exports had not been deleted yet.

    The files go first: what is killed in between finds the rows as they were and does it again.
    """
    unlink_files(tenant_id)
    found = TenantExport.objects.filter(tenant_id=tenant_id).exclude(state=ExportState.DELETED)
    return found.update(state=ExportState.DELETED, lease_until=None, expires_at=timezone.now())
