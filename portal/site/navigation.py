"""The menu of each role: what the permission table allows, and nothing else."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.core.actors import Context
from portal.core.pages import Text
from tenants.identity.sessions import own_tenants
from tenants.models import Tenant
from tenants.models.people import PLATFORM_ROLE_CHOICES, TENANT_ROLE_CHOICES
from tenants.permissions import Action, allowed


def allowed_by_name(context: Context, action: str) -> bool:
    """``allowed`` for pages of apps below, which name actions by their text.

    Raises:
        ValueError: there is no such action.
    """
    return allowed(context, Action(action))


@dataclass(frozen=True, slots=True)
class _Item:
    title: Text
    page: str
    icon: str
    action: Action
    tenant: bool | None
    """True: only inside a tenant; False: only for the platform's administrators; None: both."""

    def shown(self, context: Context) -> bool:
        if self.tenant is True and context.tenant_id is None:
            return False
        if self.tenant is False and context.platform_role is None:
            return False
        return allowed(context, self.action)


_TENANT = (
    _Item(_("Playground"), "admin:playground", "forum", Action.PLAYGROUND_USE, True),
    _Item(
        _("Knowledge bases"),
        "admin:knowledge_knowledgebase_changelist",
        "menu_book",
        Action.KNOWLEDGE_READ,
        True,
    ),
    _Item(
        _("Document sources"),
        "admin:knowledge_documentsource_changelist",
        "folder_open",
        Action.KNOWLEDGE_READ,
        True,
    ),
    _Item(_("Apps"), "admin:knowledge_app_changelist", "apps", Action.APP_READ, True),
    _Item(_("Triggers"), "admin:knowledge_trigger_changelist", "bolt", Action.APP_READ, True),
    _Item(
        _("Scenarios"), "admin:knowledge_evaluation_changelist", "science", Action.APP_READ, True
    ),
    _Item(_("API keys"), "admin:tenants_apikey_changelist", "key", Action.KEY_READ, True),
    _Item(_("Jobs"), "admin:inference_job_changelist", "list_alt", Action.JOB_READ, True),
    _Item(_("Batches"), "admin:inference_batch_changelist", "inventory_2", Action.JOB_READ, True),
    _Item(
        _("Webhooks"),
        "admin:inference_webhookdelivery_changelist",
        "webhook",
        Action.WEBHOOK_READ,
        True,
    ),
    _Item(
        _("Webhook secret"),
        "admin:inference_webhooksecret_changelist",
        "verified_user",
        Action.WEBHOOK_READ,
        True,
    ),
    _Item(_("Quotas"), "admin:tenants_quota_changelist", "speed", Action.QUOTA_READ, True),
    _Item(
        _("Default quotas"),
        "admin:tenants_quotadefault_changelist",
        "tune",
        Action.QUOTA_READ,
        True,
    ),
    _Item(_("Usage"), "admin:tenants_usagebucket_changelist", "bar_chart", Action.USAGE_READ, True),
    _Item(
        _("Service accounts"),
        "admin:tenants_serviceaccount_changelist",
        "smart_toy",
        Action.SERVICE_ACCOUNT_READ,
        True,
    ),
    _Item(_("Members"), "admin:tenants_membership_changelist", "group", Action.MEMBER_READ, True),
    _Item(
        _("Connections"),
        "admin:knowledge_connection_changelist",
        "hub",
        Action.CONNECTION_READ,
        True,
    ),
    _Item(_("Models"), "admin:inference_model_changelist", "psychology", Action.MODEL_READ, True),
    _Item(
        _("Audit trail"), "admin:audit_auditevent_changelist", "history", Action.AUDIT_READ, True
    ),
    _Item(
        _("Exports"),
        "admin:tenants_tenantexport_changelist",
        "download",
        Action.TENANT_EXPORT,
        True,
    ),
)
_PLATFORM = (
    _Item(_("Tenants"), "admin:tenants_tenant_changelist", "domain", Action.TENANT_READ, False),
    _Item(_("Users"), "admin:tenants_user_changelist", "person", Action.USER_READ, False),
    _Item(
        _("Deployments"),
        "admin:inference_deployment_changelist",
        "dns",
        Action.DEPLOYMENT_READ,
        False,
    ),
    _Item(_("Routes"), "admin:inference_route_changelist", "alt_route", Action.ROUTE_READ, False),
    _Item(
        _("Workers"), "admin:inference_worker_changelist", "memory", Action.DEPLOYMENT_READ, False
    ),
)
_PLATFORM_ALONE = (
    _Item(
        _("Usage"), "admin:tenants_usagebucket_changelist", "bar_chart", Action.USAGE_READ, False
    ),
    _Item(_("Models"), "admin:inference_model_changelist", "psychology", Action.MODEL_READ, False),
    _Item(
        _("Audit trail"),
        "admin:audit_auditevent_changelist",
        "history",
        Action.AUDIT_READ_ALL,
        False,
    ),
)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's sidebar for this request."""
    context: Context = request.portal  # type: ignore[attr-defined]
    home = {
        "title": gettext("Overview"),
        "icon": "home",
        "link": reverse("admin:index"),
        "active": request.path == reverse("admin:index"),
    }
    platform = _PLATFORM if context.tenant_id is not None else _PLATFORM + _PLATFORM_ALONE
    groups = [
        {"title": gettext("Start"), "items": [home]},
        {"title": gettext("Tenant"), "items": _items(request, context, _TENANT)},
        {"title": gettext("Platform"), "items": _items(request, context, platform)},
    ]
    return [group for group in groups if group["items"]]


def _items(
    request: HttpRequest, context: Context, items: tuple[_Item, ...]
) -> list[dict[str, Any]]:
    found = []
    for item in items:
        if item.shown(context):
            link = reverse(item.page)
            found.append(
                {
                    "title": str(item.title),
                    "icon": item.icon,
                    "link": link,
                    "active": request.path.startswith(link),
                }
            )
    return found


@dataclass(frozen=True, slots=True)
class OwnMembership:
    """A tenant that the user can work in, as the switcher shows it."""

    tenant_id: str
    name: str
    role: str
    active: bool


@dataclass(frozen=True, slots=True)
class Switcher:
    """Which tenant is active, which others there are, and what the user is here."""

    current: str
    role: str
    memberships: tuple[OwnMembership, ...]


def switcher(request: HttpRequest) -> Switcher:
    """The tenant switcher of this request; read once."""
    cached: Switcher | None = getattr(request, "_portal_switcher", None)
    if cached is not None:
        return cached
    context: Context = request.portal  # type: ignore[attr-defined]
    roles = {value: str(text) for value, text in TENANT_ROLE_CHOICES}
    memberships = tuple(
        OwnMembership(
            str(own.tenant.pk), own.tenant.name, roles[own.role], own.tenant.pk == context.tenant_id
        )
        for own in own_tenants(context)
    )
    found = Switcher(_current(context, memberships), _role(context, roles), memberships)
    request._portal_switcher = found  # type: ignore[attr-defined]
    return found


def _current(context: Context, memberships: tuple[OwnMembership, ...]) -> str:
    for membership in memberships:
        if membership.active:
            return membership.name
    if context.tenant_id is None:
        return ""
    # An administrator of the platform is inside; the scope of that tenant is open.
    tenant = Tenant.objects.filter(pk=context.tenant_id).first()
    return tenant.name if tenant else ""


def _role(context: Context, roles: dict[str, str]) -> str:
    if context.platform_role is not None:
        return str(dict(PLATFORM_ROLE_CHOICES)[context.platform_role])
    return roles[context.tenant_role] if context.tenant_role is not None else ""


def is_visiting(context: Context) -> bool:
    """Whether an administrator of the platform is inside a tenant."""
    return context.platform_role is not None and context.tenant_id is not None
