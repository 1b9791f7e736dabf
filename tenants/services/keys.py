"""API keys: made, shown once, revoked."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from audit.services import intent
from portal.core.actors import ActorType, Context
from portal.core.crypto import Peppers
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import platform_scope, tenant_scope
from tenants import api_key_format
from tenants.events import TenantsEvent
from tenants.models import ApiKey, User
from tenants.models.keys import ApiKeyKind
from tenants.permissions import Action, Scope, allowed, grantable_scopes, require
from tenants.services.checks import clean_networks, clean_text, require_tenant
from tenants.services.inheritance import forget_inherited, inherit, lock_limits
from tenants.services.service_accounts import holder_of_new_key

PLAYGROUND_LIFE: Final = timedelta(hours=1)
_OBJECT: Final = "tenants.apikey"
_MODEL_NAME: Final = re.compile(r"[-a-zA-Z0-9_]{1,80}")
_MOST_MODELS: Final = 100


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new or rotated key and its token, which is kept nowhere and shown once."""

    api_key: ApiKey
    token: str = field(repr=False)


@cache
def peppers() -> Peppers:
    """This installation's peppers of API keys."""
    return Peppers.parse(env().api_key_peppers.get_secret_value())


def create_api_key(
    *,
    context: Context,
    name: str,
    scopes: Iterable[str],
    allowed_models: Iterable[str] | None = None,
    allowed_networks: Iterable[str] | None = None,
    expires_at: datetime | None = None,
    service_account_id: UUID | None = None,
) -> CreatedKey:
    """Makes a key in the context's tenant, in the name of the context's user.

    A service account's key is an owner's to make; it goes on when that person leaves. A key that
    belongs to a service account can make none.

    Args:
        scopes: of ``tenants.permissions.Scope``; only such as the caller may hand on.
        allowed_models: names of models; None or empty for every model.
        allowed_networks: networks in CIDR notation from which it may be used, at most 50; None or
            empty for anywhere.
        service_account_id: the service account whose key it is to be.

    Raises:
        Forbidden: the caller may not, or may not hand on one of the scopes.
        NotFound: no such service account here.
        Conflict: the service account is disabled or retired.
        Invalid: naming the field that is wrong.
    """
    require(context, Action.KEY_CREATE)
    if service_account_id is not None:
        require(context, Action.SERVICE_ACCOUNT_MANAGE)
    tenant_id, user_id = _maker(context)
    clean_name = clean_text(name, "name", most=80, least=1)
    wanted = _scopes(context, scopes)
    models = _models(allowed_models)
    networks = clean_networks(allowed_networks, "allowed_networks")
    if expires_at is not None and expires_at <= timezone.now():
        raise Invalid("'expires_at' must lie in the future.", param="expires_at")
    new = api_key_format.generate()
    pepper, secret_hmac = peppers().digest(new.secret.encode())
    key = ApiKey(
        tenant_id=tenant_id,
        user_id=user_id,
        name=clean_name,
        public_id=new.public_id,
        secret_hmac=secret_hmac,
        pepper_version=pepper,
        scopes=wanted,
        allowed_models=models,
        allowed_networks=networks,
        expires_at=expires_at,
    )
    _save(context, key, TenantsEvent.KEY_CREATE, service_account_id)
    return CreatedKey(key, new.token)


def create_playground_key(*, context: Context, session_key: str) -> CreatedKey:
    """A key for one browser session's playground: inference only, for an hour.

    Args:
        session_key: the session cookie's value; the key is refused without it.

    Raises:
        Forbidden: the caller may not.
    """
    require(context, Action.PLAYGROUND_USE)
    tenant_id, user_id = _maker(context)
    if not session_key:
        raise Forbidden("A playground key needs a session.")
    new = api_key_format.generate()
    pepper, secret_hmac = peppers().digest(new.secret.encode())
    _, session_hmac = peppers().digest(session_key.encode(), pepper)
    key = ApiKey(
        tenant_id=tenant_id,
        user_id=user_id,
        name="Playground",
        kind=ApiKeyKind.PLAYGROUND,
        public_id=new.public_id,
        secret_hmac=secret_hmac,
        pepper_version=pepper,
        session_hmac=session_hmac,
        scopes=[Scope.INFERENCE.value, Scope.APPS.value],
        expires_at=timezone.now() + PLAYGROUND_LIFE,
    )
    _save(context, key, TenantsEvent.KEY_CREATE_PLAYGROUND)
    return CreatedKey(key, new.token)


def create_portal_key(*, context: Context, name: str, service_account_id: UUID) -> ApiKey:
    """A key with which the portal itself calls models for a tenant; nobody learns its secret.

    It is listed, limited, charged and revoked like any other.

    Raises:
        Forbidden: the context is not the product's own work.
        NotFound: no such service account here.
        Conflict: the service account is disabled or retired.
    """
    if context.actor.type != ActorType.SYSTEM:
        raise Forbidden("Only the portal makes keys whose secret nobody is shown.")
    require(context, Action.KEY_CREATE)
    return _own_key(context, name, service_account_id, (Scope.INFERENCE,)).api_key


def create_connected_key(
    *, context: Context, name: str, service_account_id: UUID, scopes: Iterable[Scope]
) -> CreatedKey:
    """A key with which a system that the portal sets up calls it for a tenant.

    Its token goes to that system and to nobody else; it is listed, limited, charged and revoked
    like any other.

    Raises:
        Forbidden: the context is not the product's own work.
        NotFound: no such service account here.
        Conflict: the service account is disabled or retired.
    """
    if context.actor.type != ActorType.SYSTEM:
        raise Forbidden("Only the portal makes keys for the systems that it sets up.")
    require(context, Action.KEY_CREATE)
    return _own_key(context, name, service_account_id, scopes)


def _own_key(
    context: Context, name: str, service_account_id: UUID, scopes: Iterable[Scope]
) -> CreatedKey:
    new = api_key_format.generate()
    pepper, secret_hmac = peppers().digest(new.secret.encode())
    key = ApiKey(
        tenant_id=require_tenant(context),
        name=clean_text(name, "name", most=80, least=1),
        public_id=new.public_id,
        secret_hmac=secret_hmac,
        pepper_version=pepper,
        scopes=sorted(scope.value for scope in scopes),
    )
    _save(context, key, TenantsEvent.KEY_CREATE, service_account_id)
    return CreatedKey(key, new.token)


def _save(
    context: Context, key: ApiKey, event: TenantsEvent, service_account_id: UUID | None = None
) -> None:
    with tenant_scope(context):
        tenant = lock_limits(key.tenant_id)
        if service_account_id is not None:
            key.user = holder_of_new_key(service_account_id)
        elif not User.objects.filter(pk=key.user_id).exists():
            raise Forbidden("Only an owner of the tenant makes keys for a service account.")
        with intent(
            event,
            object_type=_OBJECT,
            object_id=key.id,
            object_label=key.name,
            detail={
                "scopes": key.scopes,
                "allowed_models": key.allowed_models,
                "allowed_networks": key.allowed_networks,
            },
        ):
            key.save(force_insert=True)
            inherit(tenant, api_key_id=key.id)
            # The playground makes one an hour: quotas of those before it would pile up.
            ended = Q(revoked_at__isnull=False) | Q(expires_at__lte=timezone.now())
            forget_inherited(ended & Q(user=key.user_id))


def revoke_api_key(*, context: Context, api_key_id: UUID, reason: str) -> ApiKey:
    """Ends a key: it is refused from the next request on.

    A security administrator need not enter the key's tenant; a developer may end own keys.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such key that the caller may see.
        Conflict: it is revoked already.
    """
    if not allowed(context, Action.KEY_REVOKE):
        require(context, Action.KEY_REVOKE_OWN)
    why = clean_text(reason, "reason", most=200, least=1)
    inside = context if context.tenant_id else _in_tenant_of(context, api_key_id)
    with tenant_scope(inside):
        key = ApiKey.objects.select_for_update().filter(pk=api_key_id).first()
        if key is None:
            raise NotFound("There is no such API key.")
        if not allowed(context, Action.KEY_REVOKE) and key.user_id != context.user_id:
            raise Forbidden("You may revoke your own keys only.")
        if key.revoked_at is not None:
            raise Conflict("The API key is revoked already.")
        with intent(
            TenantsEvent.KEY_REVOKE,
            object_type=_OBJECT,
            object_id=key.id,
            object_label=key.name,
            reason=why,
        ):
            key.revoked_at = timezone.now()
            key.revoked_reason = why
            key.save(update_fields=["revoked_at", "revoked_reason"])
            forget_inherited(Q(pk=key.pk))
    return key


def _in_tenant_of(context: Context, api_key_id: UUID) -> Context:
    with platform_scope(context, reason="the tenant of a key to be revoked is looked up"):
        tenant_id = ApiKey.objects.filter(pk=api_key_id).values_list("tenant_id", flat=True).first()
    if tenant_id is None:
        raise NotFound("There is no such API key.")
    return replace(context, tenant_id=tenant_id)


def revoke_session_keys(*, context: Context, session_key: str) -> int:
    """Ends the playground keys of a session that is being closed, in every tenant.

    Returns how many there were.
    """
    if context.user_id is None or not session_key:
        return 0
    with platform_scope(context, reason="a log-out ends the session's playground keys"):
        live = ApiKey.objects.filter(
            user_id=context.user_id,
            kind=ApiKeyKind.PLAYGROUND,
            revoked_at=None,
            expires_at__gt=timezone.now(),
        )
        mine = [key.id for key in live if _is_of_session(key, session_key)]
        if not mine:
            return 0
        with intent(TenantsEvent.KEY_REVOKE, object_type=_OBJECT, reason="log-out"):
            return ApiKey.objects.filter(pk__in=mine).update(
                revoked_at=timezone.now(), revoked_reason="log-out"
            )


def _is_of_session(key: ApiKey, session_key: str) -> bool:
    bound = key.session_hmac
    return bound is not None and peppers().matches(
        session_key.encode(), key.pepper_version, bytes(bound)
    )


def _maker(context: Context) -> tuple[UUID, UUID]:
    tenant_id = require_tenant(context)
    if context.user_id is None:
        raise Forbidden("An API key is made in a person's name.")
    return tenant_id, context.user_id


def _scopes(context: Context, scopes: Iterable[str]) -> list[str]:
    wanted = sorted(set(scopes))
    if not wanted:
        raise Invalid("Give at least one scope.", param="scopes")
    known = {scope.value for scope in Scope}
    for scope in wanted:
        if scope not in known:
            raise Invalid(f"There is no scope '{scope[:40]}'.", param="scopes")
    missing = set(wanted) - {scope.value for scope in grantable_scopes(context)}
    if missing:
        raise Forbidden(f"You can't give a key the scope '{min(missing)}'.", param="scopes")
    return wanted


def _models(names: Iterable[str] | None) -> list[str] | None:
    wanted = sorted(set(names or ()))
    if len(wanted) > _MOST_MODELS:
        raise Invalid(f"At most {_MOST_MODELS} models can be listed.", param="allowed_models")
    for name in wanted:
        if not _MODEL_NAME.fullmatch(name):
            raise Invalid(f"'{name[:80]}' is no model name.", param="allowed_models")
    return wanted or None
