"""Authentication by API key."""

from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.utils import timezone

from portal.core.actors import Actor, ActorType, Context
from portal.core.http import address_within
from portal.core.tenancy import tenant_scope
from tenants import api_key_format
from tenants.errors import InvalidApiKey, NetworkNotAllowed, TenantNotActive, UserNotActive
from tenants.identity.uses import note_use
from tenants.key_secrets import proven_generation
from tenants.key_uses import KeyUse
from tenants.models.keys import ApiKey, ApiKeyKind
from tenants.models.tenant import TenantState
from tenants.services.keys import peppers

# A column for each field of ``_Found``, in its order.
_FIND: Final = """
SELECT id, tenant_id, user_id, name, kind, secret_hmac, pepper_version, generation,
       former_secret_hmac, former_pepper_version, former_until, scopes, allowed_networks,
       expires_at, revoked_at, tenant_state, user_active
  FROM api_key_by_public_id(%s)
"""


class _Found(NamedTuple):
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
    scopes: list[str]
    allowed_networks: list[str] | None
    expires_at: datetime | None
    revoked_at: datetime | None
    tenant_state: str
    user_active: bool


def authenticate_api_key(token: str, *, base: Context, session_key: str | None = None) -> Context:
    """The context of the key's holder; nothing is cached, so a revoked key ends at once.

    Playground keys open the data plane and apps alone, and only in the browser's session that they
    were made in.

    Args:
        base: what is known of the call: address, request ids.
        session_key: of the browser's session, where a playground's key may be used.

    Raises:
        InvalidApiKey: no such key, a wrong secret, revoked, expired, or a playground's.
        NetworkNotAllowed: the key is right and may not be used from the base's address.
        TenantNotActive, UserNotActive: the key is right and may not be used now.
    """
    parsed = api_key_format.parse(token)
    if parsed is None:
        raise InvalidApiKey
    found = _find(parsed.public_id)
    if found is None:
        # As much work as for a key that exists.
        peppers().matches(parsed.secret.encode(), peppers().current, b"")
        raise InvalidApiKey
    now = timezone.now()
    generation = proven_generation(parsed.secret, found, peppers=peppers(), now=now)
    expired = found.expires_at is not None and found.expires_at <= now
    if generation is None or expired or found.revoked_at is not None:
        raise InvalidApiKey
    context = _context(found, base)
    if found.kind != ApiKeyKind.STANDARD and not _of_session(found, context, session_key):
        raise InvalidApiKey
    note_use(context, KeyUse(found.tenant_id, found.id, generation), now)
    networks = tuple(found.allowed_networks or ())
    if networks and not address_within(base.address, networks):
        raise NetworkNotAllowed(replace(context, scopes=frozenset()))
    if found.tenant_state != TenantState.ACTIVE:
        raise TenantNotActive
    if not found.user_active:
        raise UserNotActive
    return context


def _of_session(found: _Found, context: Context, session_key: str | None) -> bool:
    """Whether a playground's key belongs to the browser's session."""
    if session_key is None:
        return False
    with tenant_scope(context):
        bound = ApiKey.objects.filter(pk=found.id).values_list("session_hmac", flat=True).first()
    return bound is not None and peppers().matches(
        session_key.encode(), found.pepper_version, bytes(bound)
    )


def _context(found: _Found, base: Context) -> Context:
    return replace(
        base,
        actor=Actor(ActorType.API_KEY, found.id, found.name),
        tenant_id=found.tenant_id,
        user_id=found.user_id,
        api_key_id=found.id,
        auth_method="api_key" if found.kind == ApiKeyKind.STANDARD else "playground_key",
        scopes=frozenset(found.scopes),
    )


def _find(public_id: str) -> _Found | None:
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [public_id])
        row = cursor.fetchone()
    return None if row is None else _Found(*row)
