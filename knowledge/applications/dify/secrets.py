"""Keys between the portal and Dify, encrypted under their tenant's data key."""

from functools import cache
from typing import Final

from inference.payloads import Ciphers
from knowledge.models import AppDeployment, PortalInDify
from portal.core.crypto import Cipher, Keyring
from portal.core.env import env
from portal.core.errors import Conflict
from tenants.models import TenantDataKey

Row = AppDeployment | PortalInDify
_PURPOSE: Final = b"dify app"


def seal_key(row: Row, key: str) -> None:
    """Puts a key into a row, inside its tenant; the row is not saved.

    Raises:
        Conflict: the tenant has no data key.
    """
    newest = TenantDataKey.objects.filter(tenant_id=row.tenant_id).order_by("-version").first()
    if newest is None:
        raise Conflict("The tenant has no data key.", code="no_data_key")
    row.data_key_version = newest.version
    row.sealed = _cipher(newest).encrypt(key.encode(), row_id=row.pk)


def open_key(row: Row) -> str:
    """A row's key in clear; show it to nobody. Inside the row's tenant."""
    assert row.sealed is not None, "there is a key"
    found = TenantDataKey.objects.get(tenant_id=row.tenant_id, version=row.data_key_version)
    return _cipher(found).decrypt(bytes(row.sealed), row_id=row.pk).decode()


@cache
def _ciphers() -> Ciphers:
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()), purpose=_PURPOSE)


def _cipher(key: TenantDataKey) -> Cipher:
    return _ciphers().of(key.tenant_id, key.version, bytes(key.wrapped))
