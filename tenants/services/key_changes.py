"""API keys that live on: where they may be used from, and new secrets for them."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.utils import timezone

from audit.services import intent
from portal.core.actors import Context
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tenants import api_key_format
from tenants.events import TenantsEvent
from tenants.models import ApiKey
from tenants.models.keys import ApiKeyKind
from tenants.permissions import Action, allowed, grantable_scopes, require
from tenants.services.checks import clean_networks, require_tenant
from tenants.services.keys import CreatedKey, peppers

DEFAULT_OVERLAP_SECONDS: Final = 24 * 3600
MOST_OVERLAP_SECONDS: Final = 30 * 24 * 3600
_OBJECT: Final = "tenants.apikey"


def edit_api_key(
    *, context: Context, api_key_id: UUID, allowed_networks: Iterable[str] | None
) -> ApiKey:
    """Changes from where a key may be used; it holds from the next request on.

    A developer may edit own keys.

    Args:
        allowed_networks: networks in CIDR notation, at most 50; None or empty for anywhere.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such key that the caller may see.
        Conflict: it is revoked, or a playground's.
        Invalid: naming the field that is wrong.
    """
    _require(context)
    networks = clean_networks(allowed_networks, "allowed_networks")
    with tenant_scope(context):
        key = _changeable(context, api_key_id)
        with intent(
            TenantsEvent.KEY_EDIT,
            object_type=_OBJECT,
            object_id=key.id,
            object_label=key.name,
            detail={"allowed_networks": networks},
        ):
            key.allowed_networks = networks
            key.save(update_fields=["allowed_networks"])
    return key


def rotate_api_key(
    *, context: Context, api_key_id: UUID, overlap_seconds: int = DEFAULT_OVERLAP_SECONDS
) -> CreatedKey:
    """Gives a key a new secret; its id, public id, scopes, quotas and history stay.

    The secret until now goes on working for the overlap. One that was in its own overlap already
    ends at the next request: a key has two secrets at most. Whoever rotates sees the new secret,
    so it takes the right to hand on every scope of the key. A developer may rotate own keys.

    Args:
        overlap_seconds: from 0, which ends the former secret at the next request, to 30 days.

    Raises:
        Forbidden: the caller may not, or may not hand on one of the key's scopes.
        NotFound: no such key that the caller may see.
        Conflict: it is revoked, expired, or a playground's.
        Invalid: naming the field that is wrong.
    """
    _require(context)
    if not 0 <= overlap_seconds <= MOST_OVERLAP_SECONDS:
        raise Invalid(
            f"'overlap_seconds' must be from 0 to {MOST_OVERLAP_SECONDS}.",
            param="overlap_seconds",
        )
    with tenant_scope(context):
        key = _changeable(context, api_key_id)
        if key.expires_at is not None and key.expires_at <= timezone.now():
            raise Conflict("The API key has expired: make a new one.")
        _require_scopes(context, key)
        new = api_key_format.generate(key.public_id)
        with intent(
            TenantsEvent.KEY_ROTATE,
            object_type=_OBJECT,
            object_id=key.id,
            object_label=key.name,
            detail={"generation": key.generation + 1, "overlap_seconds": overlap_seconds},
        ):
            _renew(key, new.secret, overlap_seconds)
    return CreatedKey(key, new.token)


def _require(context: Context) -> None:
    if not allowed(context, Action.KEY_EDIT):
        require(context, Action.KEY_EDIT_OWN)
    require_tenant(context)


def _changeable(context: Context, api_key_id: UUID) -> ApiKey:
    """The key, locked until the scope ends."""
    key = ApiKey.objects.select_for_update().filter(pk=api_key_id).first()
    if key is None:
        raise NotFound("There is no such API key.")
    if not allowed(context, Action.KEY_EDIT) and key.user_id != context.user_id:
        raise Forbidden("You may change your own keys only.")
    if key.revoked_at is not None:
        raise Conflict("The API key is revoked already.")
    if key.kind == ApiKeyKind.PLAYGROUND:
        raise Conflict("A playground key can't be changed: it ends with its session.")
    return key


def _require_scopes(context: Context, key: ApiKey) -> None:
    missing = set(key.scopes) - {scope.value for scope in grantable_scopes(context)}
    if missing:
        raise Forbidden(f"You can't rotate a key that has the scope '{min(missing)}'.")


def _renew(key: ApiKey, secret: str, overlap_seconds: int) -> None:
    key.former_secret_hmac = key.former_pepper_version = key.former_until = None
    if overlap_seconds:
        key.former_secret_hmac, key.former_pepper_version = key.secret_hmac, key.pepper_version
        key.former_until = timezone.now() + timedelta(seconds=overlap_seconds)
    key.pepper_version, key.secret_hmac = peppers().digest(secret.encode())
    key.generation += 1
    key.save(
        update_fields=[
            "secret_hmac",
            "pepper_version",
            "generation",
            "former_secret_hmac",
            "former_pepper_version",
            "former_until",
        ]
    )
