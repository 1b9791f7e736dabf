"""The keys of a connection: sealed under its tenant's data key, opened only to call Dify."""

from functools import cache
from typing import Any, Final
from uuid import UUID

import msgspec

from inference.payloads import Ciphers
from knowledge.dify.channel import Endpoint
from knowledge.dify.client import Dify
from knowledge.models import Connection
from portal.core.crypto import Keyring
from portal.core.env import env
from portal.core.errors import Conflict
from tenants.models import TenantDataKey

_PURPOSE: Final = b"dify connection"


class _Keys(msgspec.Struct, frozen=True, array_like=True):
    console: str
    dataset: str


@cache
def _ciphers() -> Ciphers:
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()), purpose=_PURPOSE)


def seal(connection: Connection, endpoint: Endpoint) -> None:
    """Puts an endpoint into a connection, the keys encrypted; the row is not saved.

    Inside the connection's tenant, or across tenants.

    Raises:
        Conflict: the tenant has no data key.
    """
    key = _data_keys(connection.tenant_id).order_by("-version").first()
    if key is None:
        raise Conflict("The tenant has no data key.", code="no_data_key")
    plain = msgspec.msgpack.encode(_Keys(endpoint.console_key, endpoint.dataset_key))
    cipher = _ciphers().of(connection.tenant_id, key.version, bytes(key.wrapped))
    connection.base_url = endpoint.base_url
    connection.workspace_id = UUID(endpoint.workspace_id)
    connection.data_key_version = key.version
    connection.sealed = cipher.encrypt(plain, row_id=connection.id)


def endpoint_of(connection: Connection) -> Endpoint:
    """Where a connection leads, with its keys in clear; show it to nobody.

    Inside the connection's tenant, or across tenants.
    """
    key = _data_keys(connection.tenant_id).get(version=connection.data_key_version)
    cipher = _ciphers().of(connection.tenant_id, key.version, bytes(key.wrapped))
    plain = cipher.decrypt(bytes(connection.sealed), row_id=connection.id)
    keys = msgspec.msgpack.decode(plain, type=_Keys)
    return Endpoint(connection.base_url, str(connection.workspace_id), keys.console, keys.dataset)


def open_dify(connection: Connection, **options: Any) -> Dify:
    """A client of the connection's workspace; close it.

    The keys are read in the open scope; calls need none, so end the scope before you call.
    """
    return Dify(endpoint_of(connection), **options)


def _data_keys(tenant_id: UUID) -> Any:
    return TenantDataKey.objects.filter(tenant_id=tenant_id)
