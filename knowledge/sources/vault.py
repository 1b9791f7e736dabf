"""The password of a source: sealed under its tenant's data key, opened only to read the source."""

from functools import cache
from typing import Any, Final
from uuid import UUID

from inference.payloads import Ciphers
from knowledge.models import DocumentSource
from portal.core.crypto import Keyring
from portal.core.env import env
from portal.core.errors import Conflict
from tenants.models import TenantDataKey

_PURPOSE: Final = b"document source"


@cache
def _ciphers() -> Ciphers:
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()), purpose=_PURPOSE)


def seal_password(source: DocumentSource, password: str) -> None:
    """Puts a password into a source, encrypted; the row is not saved.

    Raises:
        Conflict: the tenant has no data key.
    """
    key = _data_keys(source.tenant_id).order_by("-version").first()
    if key is None:
        raise Conflict("The tenant has no data key.", code="no_data_key")
    cipher = _ciphers().of(source.tenant_id, key.version, bytes(key.wrapped))
    source.data_key_version = key.version
    source.sealed = cipher.encrypt(password.encode(), row_id=source.pk)


def password_of(source: DocumentSource) -> str:
    """A source's password in clear, empty if it has none; show it to nobody."""
    if source.sealed is None:
        return ""
    key = _data_keys(source.tenant_id).get(version=source.data_key_version)
    cipher = _ciphers().of(source.tenant_id, key.version, bytes(key.wrapped))
    return cipher.decrypt(bytes(source.sealed), row_id=source.pk).decode()


def _data_keys(tenant_id: UUID) -> Any:
    return TenantDataKey.objects.filter(tenant_id=tenant_id)
