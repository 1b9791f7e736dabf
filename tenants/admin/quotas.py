"""Quotas of the active tenant: limits, and what is used and held now."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    context_of,
    display,
    may,
)
from tenants.admin.usage import (
    LEVEL_KINDS,
    NANOS,
    amount_text,
    every_limit_label,
    level_text,
    usage_of,
)
from tenants.models import LEVELS, LIMITS, ApiKey, Membership, Quota, ServiceAccount
from tenants.models.quotas import AppliesTo
from tenants.permissions import Action
from tenants.selectors import Defaults, quota_defaults
from tenants.services.quotas import delete_quota, set_quota


class LimitsForm(ServiceForm):
    """Every limit; an empty field means none."""

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        for name in LIMITS:
            label = str(getattr(Quota._meta.get_field(name), "verbose_name", name))
            if name.startswith("cost_"):
                self.fields[name] = forms.DecimalField(
                    label=label[:1].upper() + label[1:],
                    required=False,
                    min_value=0,
                    max_digits=19,
                    decimal_places=9,
                    help_text=_("In units of the price's currency; empty means no limit."),
                    widget=forms.NumberInput(attrs={**INPUT, "step": "any"}),
                )
            else:
                self.fields[name] = forms.IntegerField(
                    label=label[:1].upper() + label[1:],
                    required=False,
                    min_value=0,
                    max_value=2**53,
                    help_text=_("Empty means no limit."),
                    widget=forms.NumberInput(attrs=INPUT),
                )
            self._fill(name, subject)

    def _fill(self, name: str, subject: Any) -> None:
        """What the quota sets itself; a limit that it inherits stands beside the field."""
        if subject is None:
            return
        value = getattr(subject, name)
        if name in getattr(subject, "inherited", ()):
            self.fields[name].help_text = _("Empty follows the default: %(limit)s.") % {
                "limit": amount_text(value, name)
            }
            return
        is_cost = name.startswith("cost_") and value is not None
        self.fields[name].initial = Decimal(value) / NANOS if is_cost else value

    def limits(self) -> dict[str, int | None]:
        """The limits as the service takes them: cost in nano-units."""
        found: dict[str, int | None] = {}
        for name in LIMITS:
            value = self.cleaned_data[name]
            is_cost = name.startswith("cost_") and value is not None
            found[name] = int(value * NANOS) if is_cost else value
        return found

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self.errors:
            data = {**data, "limits": self.limits()}
        return data


class NewQuotaForm(LimitsForm):
    """Limits of a key, a member or a service account."""

    subject_choice = forms.ChoiceField(label=_("For"), widget=forms.Select(attrs=INPUT))

    def __init__(self, request: HttpRequest, subject: None = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        taken = Quota.objects.exclude(api_key=None, user=None)
        keys = ApiKey.objects.filter(revoked_at=None, kind="standard").exclude(
            pk__in=taken.filter(user=None).values("api_key_id")
        )
        users = taken.filter(api_key=None).values("user_id")
        members = Membership.objects.select_related("user").exclude(user_id__in=users)
        accounts = ServiceAccount.objects.filter(retired_at=None).exclude(pk__in=users)
        choice = self.fields["subject_choice"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [
            (_("API keys"), [(f"key:{key.pk}", key.name) for key in keys[:500]]),
            (_("Members"), [(f"user:{m.user_id}", m.user.email) for m in members[:500]]),
            (_("Service accounts"), [(f"user:{a.pk}", a.name) for a in accounts[:500]]),
        ]


def _detail(quota: Quota) -> str:
    return reverse("admin:tenants_quota_change", args=[quota.pk])


def _edit(request: HttpRequest, quota: Quota, data: dict[str, Any]) -> str:
    set_quota(
        context=context_of(request),
        user_id=quota.user_id,
        api_key_id=quota.api_key_id,
        model_id=quota.model_id,
        **data["limits"],
    )
    return _detail(quota)


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    kind, _colon, wanted = data["subject_choice"].partition(":")
    quota = set_quota(
        context=context_of(request),
        user_id=UUID(wanted) if kind == "user" else None,
        api_key_id=UUID(wanted) if kind == "key" else None,
        **data["limits"],
    )
    return _detail(quota)


def _delete(request: HttpRequest, quota: Quota, data: dict[str, Any]) -> str:
    delete_quota(context=context_of(request), quota_id=quota.pk)
    return reverse("admin:tenants_quota_changelist")


def _may_be_deleted(quota: Quota) -> bool:
    return not quota.of_tenant or quota.model_id is not None


@admin.register(Quota)
class QuotaAdmin(PortalModelAdmin):
    """Limits of the tenant, its keys and its members."""

    view_action = Action.QUOTA_READ
    add_page = FormPage(
        "add",
        Action.QUOTA_EDIT,
        _("New quota"),
        NewQuotaForm,
        _create,
        button=_("Set limits"),
        intro=_("Limits of one key, member or service account, inside those of the whole tenant."),
        done=_("The limits hold from the next request on."),
    )
    pages = (
        FormPage(
            "edit",
            Action.QUOTA_EDIT,
            _("Change limits"),
            LimitsForm,
            _edit,
            button=_("Set limits"),
            done=_("The limits hold from the next request on."),
        ),
        FormPage(
            "delete",
            Action.QUOTA_EDIT,
            _("Delete"),
            ServiceForm,
            _delete,
            button=_("Delete quota"),
            intro=_(
                "These limits no longer hold, and what was counted under them is forgotten, but "
                "where a default holds: then only what was set here goes. The tenant's own limits "
                "go on."
            ),
            done=_("The quota is deleted."),
            danger=True,
            offered=_may_be_deleted,
        ),
    )
    detail_template = "site/quota.html"
    empty_title = _("No quota yet")
    empty_text = _("Without a quota, nothing limits this tenant's calls.")
    list_text = _(
        "The tenant's own limits hold for everything; a key's or a member's hold inside them."
    )
    sortable_by = ()
    list_display = ("scope_name", "level", "tokens", "requests", "concurrency_limit", "source")

    def allows(self, request: HttpRequest, page: FormPage, obj: Any) -> bool:
        if obj is not None and obj.of_tenant:
            return may(request, Action.QUOTA_EDIT_TENANT)
        return super().allows(request, page, obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quota]:
        return Quota.objects.select_related("window", "tenant", "user", "api_key").order_by(
            "created_at", "pk"
        )

    @display(description=_("For"))
    def scope_name(self, quota: Quota) -> str:
        return str(quota)

    @display(description=_("Level"), label=STATUS_KINDS)
    def level(self, quota: Quota) -> tuple[str, str]:
        usages = usage_of(quota, getattr(quota, "window", None), quota.tenant.time_zone)
        highest = max(u.level or 0 for u in usages)
        if highest:
            return LEVEL_KINDS[highest], level_text(highest)
        return "default", gettext("Below %(level)s %%") % {"level": LEVELS[0]}

    @display(description=_("Tokens"))
    def tokens(self, quota: Quota) -> str:
        return _shortest(quota, "tokens")

    @display(description=_("Requests"))
    def requests(self, quota: Quota) -> str:
        return _shortest(quota, "requests")

    @display(description=_("At once"), ordering="concurrency")
    def concurrency_limit(self, quota: Quota) -> str:
        return "" if quota.concurrency is None else str(quota.concurrency)

    @display(description=_("Set by"))
    def source(self, quota: Quota) -> str:
        words = [gettext("Default")] if quota.inherited else []
        words += [gettext("Itself")] if quota.own_limits else []
        return ", ".join(words)

    def detail_context(self, request: HttpRequest, obj: Quota) -> dict[str, Any]:
        window = getattr(obj, "window", None)
        defaults = quota_defaults(obj.tenant_id)
        usages = usage_of(obj, window, obj.tenant.time_zone)
        return {
            "limited": [u for u in usages if u.limit is not None],
            "unlimited": [u for u in usages if u.limit is None],
            "concurrency": obj.concurrency,
            "active": 0 if window is None else window.active,
            "sources": sources_of(obj, defaults),
        }


_INHERITED = {
    AppliesTo.API_KEY.value: gettext_noop("From the default for each API key: %s"),
    AppliesTo.USER.value: gettext_noop("From the default for each user: %s"),
}


def sources_of(quota: Quota, defaults: Defaults) -> list[tuple[str, str]]:
    """Each limit of a quota that a default speaks of, and whose word holds, in words."""
    if quota.followed is None or quota.followed not in defaults:
        return []
    default = defaults[quota.followed]
    found = []
    for name, label in every_limit_label().items():
        value = getattr(default, name)
        if name in quota.inherited:
            found.append(
                (label, gettext(_INHERITED[default.applies_to]) % amount_text(value, name))
            )
        elif value is not None:
            overridden = gettext("Set here, in the place of the default's %s")
            found.append((label, overridden % amount_text(value, name)))
    return found


def _shortest(quota: Quota, metric: str) -> str:
    """The fullest limit of a metric in words, else what is used this month."""
    usages = [
        u
        for u in usage_of(quota, getattr(quota, "window", None), quota.tenant.time_zone)
        if u.name.startswith(metric)
    ]
    limited = [u for u in usages if u.limit is not None]
    if limited:
        fullest = max(limited, key=lambda u: u.used_width + u.held_width)
        return f"{fullest.label}: {fullest.text}"
    return next(u.text for u in usages if u.name.endswith("_month"))
