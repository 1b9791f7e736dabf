"""What events say and what runs were given and answered: sealed under the tenant's data key."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from uuid import UUID

import msgspec

from inference.payloads import Ciphers
from knowledge.models import StreamEvent, TriggerRun
from knowledge.triggers.rules import Happening
from portal.core.crypto import Cipher, Keyring
from portal.core.env import env
from portal.core.errors import Conflict
from tenants.models import TenantDataKey

_PURPOSE: Final = b"trigger"


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What an event says."""

    subject: str
    type: str
    data: dict[str, Any]


class Contents(msgspec.Struct, frozen=True, array_like=True):
    """What a run was given, and its answer.

    Attributes:
        findings: why each rule held, by its name.
        answer: the model's text.
    """

    inputs: dict[str, Any]
    findings: dict[str, str]
    answer: str = ""


@cache
def _ciphers() -> Ciphers:
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()), purpose=_PURPOSE)


def newest_cipher(tenant_id: UUID) -> tuple[int, Cipher]:
    """The version of the tenant's newest data key and its cipher, in the tenant's scope.

    Raises:
        Conflict: the tenant has no data key.
    """
    key = TenantDataKey.objects.filter(tenant_id=tenant_id).order_by("-version").first()
    if key is None:
        raise Conflict("The tenant has no data key.", code="no_data_key")
    return key.version, _ciphers().of(tenant_id, key.version, bytes(key.wrapped))


def cipher_at(tenant_id: UUID, version: int) -> Cipher:
    """The cipher under one of the tenant's data keys, in the tenant's scope."""
    key = TenantDataKey.objects.get(tenant_id=tenant_id, version=version)
    return _ciphers().of(tenant_id, version, bytes(key.wrapped))


def subject_of(cipher: Cipher, stream: str, subject: str) -> bytes:
    """The fingerprint by which events about the same are found."""
    return cipher.fingerprint(f"{stream}\0{subject}".encode())


def seal_told(cipher: Cipher, event: StreamEvent, told: Told) -> None:
    """Puts what an event says into its row, which is not saved."""
    plain = msgspec.msgpack.encode(told)
    event.sealed, event.size = cipher.encrypt(plain, row_id=event.id), len(plain)


def told_by(event: StreamEvent, ciphers: dict[int, Cipher]) -> Told:
    """What an event says.

    Args:
        ciphers: those known already, by the version of the data key; more are added.
    """
    version = event.data_key_version
    if version not in ciphers:
        ciphers[version] = cipher_at(event.tenant_id, version)
    plain = ciphers[version].decrypt(bytes(event.sealed), row_id=event.id)
    return msgspec.msgpack.decode(plain, type=Told)


def happening(event: StreamEvent, ciphers: dict[int, Cipher]) -> Happening:
    """An event as rules see it."""
    told = told_by(event, ciphers)
    return Happening(told.subject, event.at, told.data)


def seal_contents(run: TriggerRun, contents: Contents) -> None:
    """Puts what a run holds into its row, which is not saved."""
    run.data_key_version, cipher = newest_cipher(run.tenant_id)
    run.sealed = cipher.encrypt(msgspec.msgpack.encode(contents), row_id=run.id)


def contents_of(run: TriggerRun) -> Contents | None:
    """What a run holds; None once it is not kept any more."""
    if run.sealed is None:
        return None
    cipher = cipher_at(run.tenant_id, run.data_key_version)
    plain = cipher.decrypt(bytes(run.sealed), row_id=run.id)
    return msgspec.msgpack.decode(plain, type=Contents)


def seal_url(cipher: Cipher, row_id: UUID, url: str) -> bytes:
    """A receiver's address; its path and query are often credentials."""
    return cipher.encrypt(url.encode(), row_id=row_id)


def url_of(tenant_id: UUID, version: int, row_id: UUID, sealed: bytes) -> str:
    """The address that ``seal_url`` sealed."""
    return cipher_at(tenant_id, version).decrypt(sealed, row_id=row_id).decode()


def json_object(text: str) -> Mapping[str, Any] | None:
    """The object that an answer is in JSON; None where it is none."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None
