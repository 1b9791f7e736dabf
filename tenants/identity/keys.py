"""Authentication by API key."""

from dataclasses import replace
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.utils import timezone

from portal.core.actors import Actor, ActorType, Context
from tenants import api_key_format
from tenants.errors import InvalidApiKey, TenantNotActive, UserNotActive
from tenants.models.keys import ApiKeyKind
from tenants.models.tenant import TenantState
from tenants.services.keys import peppers

# A column for each field of ``_Found``, in its order.
_FIND: Final = """
SELECT id, tenant_id, user_id, name, kind, secret_hmac, pepper_version, scopes, expires_at,
       revoked_at, tenant_state, user_active
  FROM api_key_by_public_id(%s)
"""


class _Found(NamedTuple):
    id: UUID
    tenant_id: UUID
    user_id: UUID
    name: str
    kind: str
    secret_hmac: Any
    pepper_version: int
    scopes: list[str]
    expires_at: Any
    revoked_at: Any
    tenant_state: str
    user_active: bool


def authenticate_api_key(token: str, *, base: Context) -> Context:
    """The context of the key's holder; nothing is cached, so a revoked key ends at once.

    Playground keys open the data plane alone.

    Args:
        base: what is known of the call: address, request ids.

    Raises:
        InvalidApiKey: no such key, a wrong secret, revoked, expired, or a playground's.
        TenantNotActive, UserNotActive: the key is right and may not be used now.
    """
    parsed = api_key_format.parse(token)
    if parsed is None:
        raise InvalidApiKey
    found = _find(parsed.public_id)
    secret = parsed.secret.encode()
    if found is None:
        # As much work as for a key that exists.
        peppers().matches(secret, peppers().current, b"")
        raise InvalidApiKey
    if not peppers().matches(secret, found.pepper_version, bytes(found.secret_hmac)):
        raise InvalidApiKey
    expired = found.expires_at is not None and found.expires_at <= timezone.now()
    if found.revoked_at is not None or expired or found.kind != ApiKeyKind.STANDARD:
        raise InvalidApiKey
    if found.tenant_state != TenantState.ACTIVE:
        raise TenantNotActive
    if not found.user_active:
        raise UserNotActive
    return replace(
        base,
        actor=Actor(ActorType.API_KEY, found.id, found.name),
        tenant_id=found.tenant_id,
        user_id=found.user_id,
        api_key_id=found.id,
        auth_method="api_key",
        scopes=frozenset(found.scopes),
    )


def _find(public_id: str) -> _Found | None:
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [public_id])
        row = cursor.fetchone()
    return None if row is None else _Found(*row)
