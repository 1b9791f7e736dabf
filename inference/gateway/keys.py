"""Whose key it is that a call came with, and whether it may be used: a pure decision."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from portal.core.crypto import Peppers
from portal.core.errors import Forbidden, PortalError
from portal.core.http import address_within
from tenants.key_secrets import proven_generation

INFERENCE_SCOPE: Final = "inference"


class Credential(msgspec.Struct, frozen=True):
    """What a caller sent, and from where: public id, secret, the browser session if any."""

    public_id: str
    secret: str
    session_key: str | None = None
    address: str | None = None


class Vouched(msgspec.Struct, frozen=True):
    """A key whose holder this process has authenticated already; no secret is at hand.

    Whether the key may still be used, and for what, is decided as for any other. ``address`` is
    where the call was sent from; where it is None the key's networks are not asked. ``session``
    tells that the browser's session of the key was proved too, ``scope`` what the key must have.
    """

    public_id: str
    address: str | None = None
    session: bool = False
    scope: str = INFERENCE_SCOPE


class KeyFacts(msgspec.Struct, frozen=True):
    """A key with its tenant and user, as the admission transaction reads them.

    In a verdict ``generation`` is that of the secret that the caller sent.
    """

    public_id: str
    id: UUID
    tenant_id: UUID
    user_id: UUID
    name: str
    kind: str
    secret_hmac: bytes
    pepper_version: int
    generation: int
    former_secret_hmac: bytes | None
    former_pepper_version: int | None
    former_until: datetime | None
    session_hmac: bytes | None
    scopes: frozenset[str]
    allowed_models: frozenset[str] | None
    allowed_networks: tuple[str, ...] | None
    expires_at: datetime | None
    revoked_at: datetime | None
    tenant_state: str
    time_zone: str
    weight: int
    user_active: bool
    data_key_version: int
    data_key: bytes


def authenticate(
    credential: Credential | Vouched | None,
    keys: Mapping[str, KeyFacts],
    *,
    peppers: Peppers,
    now: datetime,
) -> KeyFacts | None:
    """The key that the credential proves; None for unknown, wrong, revoked, expired, unbound.

    The secret may be the former one for as long as it works beside the present one.

    Args:
        keys: by public id.
    """
    if credential is None:
        return None
    key = keys.get(credential.public_id)
    if key is None:
        return None
    if isinstance(credential, Credential):
        key = _proven(credential, key, peppers, now)
    elif key.session_hmac is not None and not credential.session:
        # It works with its browser's session alone.
        return None
    if key is None or key.revoked_at is not None:
        return None
    return None if key.expires_at is not None and key.expires_at <= now else key


def _proven(
    credential: Credential, key: KeyFacts, peppers: Peppers, now: datetime
) -> KeyFacts | None:
    generation = proven_generation(credential.secret, key, peppers=peppers, now=now)
    if generation is None:
        return None
    if key.session_hmac is not None:
        session = (credential.session_key or "").encode()
        if not peppers.matches(session, key.pepper_version, key.session_hmac):
            return None
    return key if generation == key.generation else replace(key, generation=generation)


def entitlement_refusal(
    key: KeyFacts, credential: Credential | Vouched | None
) -> PortalError | None:
    """The refusal of a key that may not call models, or not from where it was sent."""
    scope = credential.scope if isinstance(credential, Vouched) else INFERENCE_SCOPE
    return _elsewhere(key, credential) or _not_entitled(key, scope)


def _elsewhere(key: KeyFacts, credential: Credential | Vouched | None) -> PortalError | None:
    networks = key.allowed_networks
    if networks is None:
        return None
    if isinstance(credential, Vouched) and credential.address is None:
        return None
    if credential is not None and address_within(credential.address, networks):
        return None
    return Forbidden(
        "This API key may not be used from your network: call from a network that it allows, "
        "or ask its owner to add yours.",
        code="network_not_allowed",
    )


def _not_entitled(key: KeyFacts, scope: str) -> PortalError | None:
    if key.tenant_state != "active":
        return Forbidden(
            "This tenant is not active; ask your administrator.", code="tenant_not_active"
        )
    if not key.user_active:
        return Forbidden("The owner of this API key is deactivated.", code="user_not_active")
    if scope not in key.scopes:
        return Forbidden(
            f"This API key may not call models: it lacks the scope '{scope}'.",
            code="insufficient_scope",
        )
    return None
