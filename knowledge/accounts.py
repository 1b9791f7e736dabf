"""The portal's own API keys in a tenant: what it spends there by itself is charged to them.

Each belongs to a service account, so that its owners see it, set quotas on it and may revoke it.
"""

from dataclasses import replace
from typing import Final
from uuid import UUID

from django.utils import timezone

from inference.jobs.submission import key_context
from portal.core.actors import Context, TenantRole
from portal.core.errors import Conflict
from tenants.models import ApiKey, Membership, ServiceAccount
from tenants.permissions import Scope
from tenants.services import (
    CreatedKey,
    create_connected_key,
    create_portal_key,
    create_service_account,
)

ACCOUNT: Final = "Knowledge bases"
TRIGGERS: Final = "Triggers"
DIFY_ACCOUNT: Final = "Dify"
_ABOUT: Final = {
    ACCOUNT: "The portal's own: embeds and ranks the documents of knowledge bases.",
    TRIGGERS: "The portal's own: runs the apps that triggers start.",
    DIFY_ACCOUNT: "Apps in Dify call models and knowledge bases of the portal with its keys.",
}


class NoKey(Conflict):
    """The portal's own key may not be used any more, and somebody has to make another."""

    code = "knowledge_key_missing"

    def __init__(self, what: str = "knowledge base", account: str = ACCOUNT) -> None:
        super().__init__(
            f"The API key of the service account '{account}' is revoked or disabled: save "
            f"the {what}'s settings to make another one."
        )


def usable_key(api_key_id: UUID | None) -> ApiKey | None:
    """The key if it may be used now, in the open scope's tenant."""
    if api_key_id is None:
        return None
    key = ApiKey.objects.select_related("user").filter(pk=api_key_id, revoked_at=None).first()
    expired = key is not None and key.expires_at is not None and key.expires_at <= timezone.now()
    return None if key is None or expired or not key.user.is_active else key


def own_key(context: Context, known: UUID | None, name: str = ACCOUNT) -> ApiKey:
    """The portal's own key in the open scope's tenant: the one that is known, or a new one.

    Args:
        name: of the service account, and of the key.

    Raises:
        Conflict: its service account is disabled.
    """
    found = usable_key(known)
    if found is not None:
        return found
    work = _work(context)
    account = _account(work, context, name)
    return create_portal_key(context=work, name=name, service_account_id=account.pk)


def new_dify_key(context: Context) -> CreatedKey:
    """A key with which a Dify calls the portal for the open scope's tenant, and its token.

    Raises:
        Conflict: its service account is disabled.
    """
    work = _work(context)
    account = _account(work, context, DIFY_ACCOUNT)
    return create_connected_key(
        context=work,
        name=DIFY_ACCOUNT,
        service_account_id=account.pk,
        scopes=(Scope.INFERENCE, Scope.KNOWLEDGE_READ),
    )


def _work(context: Context) -> Context:
    """The portal's own work on behalf of whoever acts."""
    return replace(
        Context.system("knowledge", tenant_id=context.tenant_id),
        on_behalf_of=context.actor.id,
        request_id=context.request_id,
    )


def _account(work: Context, context: Context, name: str) -> ServiceAccount:
    account = ServiceAccount.objects.filter(name__iexact=name, retired_at=None).first()
    return account or create_service_account(
        context=work, name=name, description=_ABOUT[name], responsible_id=_responsible(context)
    )


def _responsible(context: Context) -> UUID | None:
    """Whom to ask about it: who makes it, or an owner where that is no member."""
    members = list(Membership.objects.order_by("created_at"))
    found = [m.user_id for m in members if m.user_id == context.user_id]
    found += [m.user_id for m in members if m.role == TenantRole.OWNER]
    return next(iter(found), None)


def spending_context(key: ApiKey, request_id: str) -> Context:
    """The context of a job that is charged to the portal's own key."""
    return key_context(
        tenant_id=key.tenant_id,
        api_key_id=key.pk,
        user_id=key.user_id,
        label=key.name,
        request_id=request_id,
    )
