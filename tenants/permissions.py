"""Who may do what: one table a kind of role, and nothing outside the tables.

A caller with an API key may do what the key's scopes say, whoever made the key. A person may do
what the platform role says and, inside a tenant, what the role there says.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from portal.core.actors import ActorType, Context, PlatformRole, TenantRole
from portal.core.errors import Forbidden


class Action(StrEnum):
    """Everything that can be done through the control plane."""

    TENANT_READ = "tenant.read"
    TENANT_CREATE = "tenant.create"
    TENANT_EDIT = "tenant.edit"
    TENANT_SUSPEND = "tenant.suspend"
    TENANT_CLOSE = "tenant.close"
    TENANT_EXPORT = "tenant.export"
    TENANT_ENTER = "tenant.enter"
    USER_READ = "user.read"
    USER_CREATE = "user.create"
    USER_DEACTIVATE = "user.deactivate"
    USER_SET_ROLE = "user.set_role"
    USER_RESET_PASSWORD = "user.reset_password"  # noqa: S105
    MEMBER_READ = "member.read"
    MEMBER_MANAGE = "member.manage"
    SERVICE_ACCOUNT_READ = "service_account.read"
    SERVICE_ACCOUNT_MANAGE = "service_account.manage"
    KEY_READ = "key.read"
    KEY_CREATE = "key.create"
    KEY_EDIT = "key.edit"
    KEY_EDIT_OWN = "key.edit_own"
    KEY_REVOKE = "key.revoke"
    KEY_REVOKE_OWN = "key.revoke_own"
    QUOTA_READ = "quota.read"
    QUOTA_EDIT = "quota.edit"
    QUOTA_EDIT_TENANT = "quota.edit_tenant"
    JOB_READ = "job.read"
    JOB_SUBMIT = "job.submit"
    JOB_CANCEL = "job.cancel"
    WEBHOOK_READ = "webhook.read"
    WEBHOOK_SEND = "webhook.send"
    WEBHOOK_SECRET = "webhook.secret"  # noqa: S105
    USAGE_READ = "usage.read"
    USAGE_REPAIR = "usage.repair"
    MODEL_READ = "model.read"
    MODEL_EDIT = "model.edit"
    DEPLOYMENT_READ = "deployment.read"
    DEPLOYMENT_EDIT = "deployment.edit"
    ROUTE_READ = "route.read"
    ROUTE_EDIT = "route.edit"
    CONNECTION_READ = "connection.read"
    CONNECTION_EDIT = "connection.edit"
    CONNECTION_SHARE = "connection.share"
    PLAYGROUND_USE = "playground.use"
    INFERENCE_CALL = "inference.call"
    KNOWLEDGE_READ = "knowledge.read"
    KNOWLEDGE_EDIT = "knowledge.edit"
    KNOWLEDGE_RETRIEVE = "knowledge.retrieve"
    APP_READ = "app.read"
    APP_EDIT = "app.edit"
    APP_CALL = "app.call"
    EVENT_SEND = "event.send"
    AUDIT_READ = "audit.read"
    AUDIT_READ_ALL = "audit.read_all"


class Scope(StrEnum):
    """What an API key can be allowed to do."""

    INFERENCE = "inference"
    TENANT_READ = "tenant:read"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    JOBS_READ = "jobs:read"
    KNOWLEDGE_READ = "knowledge:read"
    KNOWLEDGE_WRITE = "knowledge:write"
    APPS = "apps"
    APPS_READ = "apps:read"
    APPS_WRITE = "apps:write"
    EVENTS = "events"
    AUDIT_READ = "audit:read"


PLATFORM_ACTIONS: Final[Mapping[PlatformRole, frozenset[Action]]] = MappingProxyType(
    {
        PlatformRole.SYSTEM: frozenset(
            {
                Action.TENANT_READ,
                Action.TENANT_CREATE,
                Action.TENANT_EDIT,
                Action.TENANT_SUSPEND,
                Action.TENANT_CLOSE,
                Action.TENANT_EXPORT,
                Action.TENANT_ENTER,
                Action.USER_READ,
                Action.USER_CREATE,
                Action.MEMBER_READ,
                Action.MEMBER_MANAGE,
                Action.SERVICE_ACCOUNT_READ,
                Action.KEY_READ,
                Action.QUOTA_READ,
                Action.QUOTA_EDIT_TENANT,
                Action.JOB_READ,
                Action.USAGE_READ,
                Action.MODEL_READ,
                Action.MODEL_EDIT,
                Action.DEPLOYMENT_READ,
                Action.DEPLOYMENT_EDIT,
                Action.ROUTE_READ,
                Action.ROUTE_EDIT,
                Action.CONNECTION_READ,
                Action.CONNECTION_EDIT,
                Action.CONNECTION_SHARE,
            }
        ),
        PlatformRole.SECURITY: frozenset(
            {
                Action.TENANT_READ,
                Action.TENANT_ENTER,
                Action.USER_READ,
                Action.USER_CREATE,
                Action.USER_DEACTIVATE,
                Action.USER_SET_ROLE,
                Action.USER_RESET_PASSWORD,
                Action.MEMBER_READ,
                Action.SERVICE_ACCOUNT_READ,
                Action.KEY_READ,
                Action.KEY_REVOKE,
            }
        ),
        PlatformRole.AUDIT: frozenset(
            {Action.TENANT_READ, Action.AUDIT_READ, Action.AUDIT_READ_ALL}
        ),
    }
)

TENANT_ACTIONS: Final[Mapping[TenantRole, frozenset[Action]]] = MappingProxyType(
    {
        TenantRole.OWNER: frozenset(
            {
                Action.TENANT_READ,
                Action.TENANT_EXPORT,
                Action.MEMBER_READ,
                Action.MEMBER_MANAGE,
                Action.SERVICE_ACCOUNT_READ,
                Action.SERVICE_ACCOUNT_MANAGE,
                Action.KEY_READ,
                Action.KEY_CREATE,
                Action.KEY_EDIT,
                Action.KEY_EDIT_OWN,
                Action.KEY_REVOKE,
                Action.KEY_REVOKE_OWN,
                Action.QUOTA_READ,
                Action.QUOTA_EDIT,
                Action.JOB_READ,
                Action.JOB_CANCEL,
                Action.WEBHOOK_READ,
                Action.WEBHOOK_SEND,
                Action.WEBHOOK_SECRET,
                Action.USAGE_READ,
                Action.MODEL_READ,
                Action.CONNECTION_READ,
                Action.CONNECTION_EDIT,
                Action.PLAYGROUND_USE,
                Action.INFERENCE_CALL,
                Action.KNOWLEDGE_READ,
                Action.KNOWLEDGE_EDIT,
                Action.KNOWLEDGE_RETRIEVE,
                Action.APP_READ,
                Action.APP_EDIT,
                Action.APP_CALL,
                Action.EVENT_SEND,
            }
        ),
        TenantRole.DEVELOPER: frozenset(
            {
                Action.TENANT_READ,
                Action.SERVICE_ACCOUNT_READ,
                Action.KEY_READ,
                Action.KEY_CREATE,
                Action.KEY_EDIT_OWN,
                Action.KEY_REVOKE_OWN,
                Action.QUOTA_READ,
                Action.JOB_READ,
                Action.WEBHOOK_READ,
                Action.WEBHOOK_SEND,
                Action.USAGE_READ,
                Action.MODEL_READ,
                Action.CONNECTION_READ,
                Action.PLAYGROUND_USE,
                Action.INFERENCE_CALL,
                Action.KNOWLEDGE_READ,
                Action.KNOWLEDGE_EDIT,
                Action.KNOWLEDGE_RETRIEVE,
                Action.APP_READ,
                Action.APP_EDIT,
                Action.APP_CALL,
                Action.EVENT_SEND,
            }
        ),
        TenantRole.VIEWER: frozenset(
            {
                Action.TENANT_READ,
                Action.SERVICE_ACCOUNT_READ,
                Action.KEY_READ,
                Action.QUOTA_READ,
                Action.JOB_READ,
                Action.USAGE_READ,
                Action.MODEL_READ,
                Action.CONNECTION_READ,
                Action.KNOWLEDGE_READ,
                Action.APP_READ,
            }
        ),
        TenantRole.AUDITOR: frozenset({Action.TENANT_READ, Action.JOB_READ, Action.AUDIT_READ}),
    }
)

SCOPE_ACTIONS: Final[Mapping[Scope, frozenset[Action]]] = MappingProxyType(
    {
        # Of jobs a key sees and ends those that it submitted.
        Scope.INFERENCE: frozenset(
            {Action.INFERENCE_CALL, Action.JOB_SUBMIT, Action.WEBHOOK_SEND, Action.MODEL_READ}
        ),
        Scope.TENANT_READ: frozenset({Action.TENANT_READ, Action.QUOTA_READ, Action.USAGE_READ}),
        Scope.MEMBERS_READ: frozenset({Action.MEMBER_READ}),
        Scope.MEMBERS_WRITE: frozenset({Action.MEMBER_READ, Action.MEMBER_MANAGE}),
        Scope.KEYS_READ: frozenset({Action.KEY_READ, Action.SERVICE_ACCOUNT_READ}),
        Scope.KEYS_WRITE: frozenset(
            {
                Action.SERVICE_ACCOUNT_READ,
                Action.KEY_READ,
                Action.KEY_CREATE,
                Action.KEY_EDIT,
                Action.KEY_REVOKE,
            }
        ),
        Scope.JOBS_READ: frozenset({Action.JOB_READ, Action.WEBHOOK_READ}),
        Scope.KNOWLEDGE_READ: frozenset({Action.KNOWLEDGE_READ, Action.KNOWLEDGE_RETRIEVE}),
        Scope.KNOWLEDGE_WRITE: frozenset(
            {Action.KNOWLEDGE_READ, Action.KNOWLEDGE_RETRIEVE, Action.KNOWLEDGE_EDIT}
        ),
        Scope.APPS: frozenset({Action.APP_CALL}),
        Scope.APPS_READ: frozenset({Action.APP_READ}),
        Scope.APPS_WRITE: frozenset({Action.APP_READ, Action.APP_EDIT, Action.APP_CALL}),
        Scope.EVENTS: frozenset({Action.EVENT_SEND}),
        Scope.AUDIT_READ: frozenset({Action.AUDIT_READ}),
    }
)

GRANTABLE_SCOPES: Final[Mapping[TenantRole, frozenset[Scope]]] = MappingProxyType(
    {
        # An owner hands the trail to the tenant's own audit system without reading it in person.
        TenantRole.OWNER: frozenset(Scope),
        TenantRole.DEVELOPER: frozenset(
            {
                Scope.INFERENCE,
                Scope.TENANT_READ,
                Scope.KEYS_READ,
                Scope.JOBS_READ,
                Scope.KNOWLEDGE_READ,
                Scope.KNOWLEDGE_WRITE,
                Scope.APPS,
                Scope.APPS_READ,
                Scope.APPS_WRITE,
                Scope.EVENTS,
            }
        ),
        TenantRole.VIEWER: frozenset(),
        TenantRole.AUDITOR: frozenset(),
    }
)
"""Which scopes a member may put on a key; a key may hand on no scope that it lacks itself."""

CLOSING_ACTIONS: Final = frozenset(
    {
        Action.TENANT_READ,
        Action.TENANT_EXPORT,
        Action.MEMBER_READ,
        Action.SERVICE_ACCOUNT_READ,
        Action.KEY_READ,
        Action.QUOTA_READ,
        Action.JOB_READ,
        Action.WEBHOOK_READ,
        Action.USAGE_READ,
        Action.MODEL_READ,
        Action.CONNECTION_READ,
        Action.KNOWLEDGE_READ,
        Action.APP_READ,
        Action.AUDIT_READ,
    }
)
"""What is left of a tenant role's actions while the tenant is closing: it is read, and no more."""

_INSIDE_TENANTS: Final = frozenset({Action.QUOTA_EDIT_TENANT, Action.CONNECTION_SHARE}).union(
    *TENANT_ACTIONS.values()
)

_NOTHING: Final[frozenset[Action]] = frozenset()
_EVERYTHING: Final = frozenset(Action)


def actions_of(context: Context) -> frozenset[Action]:
    """Every action that the context's caller may take; empty for a caller nobody knows."""
    if context.api_key_id is not None:
        return _NOTHING.union(*(SCOPE_ACTIONS[s] for s in Scope if s.value in context.scopes))
    if context.actor.type == ActorType.SYSTEM:
        # The product's own work: seeding, scheduled tasks. No request can make this actor.
        return _EVERYTHING if context.auth_method == "internal" else _NOTHING
    if context.actor.type != ActorType.USER:
        return _NOTHING
    found = _NOTHING
    if context.platform_role is not None:
        found |= PLATFORM_ACTIONS[context.platform_role]
    if context.tenant_role is not None and context.tenant_id is not None:
        found |= TENANT_ACTIONS[context.tenant_role]
    if context.tenant_read_only:
        found -= _INSIDE_TENANTS - CLOSING_ACTIONS
    return found


def allowed(context: Context, action: Action) -> bool:
    """Whether the caller may take this action."""
    return action in actions_of(context)


def require(context: Context, action: Action) -> None:
    """Goes on only if the caller may take this action.

    Raises:
        Forbidden: naming the action.
    """
    if not allowed(context, action):
        raise Forbidden(
            f"You may not do this; it needs the permission '{action}'.",
            data={"action": action.value},
        )


def grantable_scopes(context: Context) -> frozenset[Scope]:
    """The scopes of keys whose secrets the caller may be shown: new ones and rotated ones."""
    if context.api_key_id is not None:
        return frozenset(s for s in Scope if s.value in context.scopes)
    if context.actor.type == ActorType.USER and context.tenant_role is not None:
        return GRANTABLE_SCOPES[context.tenant_role]
    return frozenset()
