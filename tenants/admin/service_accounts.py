"""Service accounts of the active tenant, and their keys."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Text,
    context_of,
    display,
)
from tenants.admin.common import ReasonForm
from tenants.admin.keys import CreateKeyForm, key_ready, key_state
from tenants.models import Membership, ServiceAccount
from tenants.permissions import Action
from tenants.querysets import keys, service_accounts
from tenants.services import (
    create_api_key,
    create_service_account,
    disable_service_account,
    edit_service_account,
    enable_service_account,
    retire_service_account,
)

STATES: dict[str, tuple[str, Text]] = {
    "active": ("success", _("Active")),
    "disabled": ("warning", _("Disabled")),
    "retired": ("default", _("Retired")),
}


class ServiceAccountForm(ServiceForm):
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        help_text=_("The business system, such as “Invoice reader”."),
        widget=forms.TextInput(attrs=INPUT),
    )
    description = forms.CharField(
        label=_("Description"),
        max_length=400,
        required=False,
        widget=forms.TextInput(attrs=INPUT),
    )
    responsible_id = forms.TypedChoiceField(
        label=_("Responsible"),
        coerce=UUID,
        help_text=_("Whom to ask about it. The account goes on when this person leaves."),
        widget=forms.Select(attrs=INPUT),
    )

    def __init__(
        self, request: HttpRequest, subject: ServiceAccount | None = None, **kwargs: Any
    ) -> None:
        super().__init__(request, subject, **kwargs)
        responsible = self.fields["responsible_id"]
        assert isinstance(responsible, forms.ChoiceField)
        members = Membership.objects.select_related("user").order_by("user__email")
        responsible.choices = [(str(m.user_id), m.user.email) for m in members[:500]]
        if subject is None:
            responsible.initial = context_of(request).user_id


def _detail(account: ServiceAccount) -> str:
    return reverse("admin:tenants_serviceaccount_change", args=[account.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    return _detail(create_service_account(context=context_of(request), **data))


def _edit(request: HttpRequest, account: ServiceAccount, data: dict[str, Any]) -> str:
    edit_service_account(context=context_of(request), service_account_id=account.pk, **data)
    return _detail(account)


def _give_key(request: HttpRequest, account: ServiceAccount, data: dict[str, Any]) -> HttpResponse:
    made = create_api_key(context=context_of(request), service_account_id=account.pk, **data)
    return key_ready(request, made)


def _disable(request: HttpRequest, account: ServiceAccount, data: dict[str, Any]) -> str:
    disable_service_account(context=context_of(request), service_account_id=account.pk, **data)
    return _detail(account)


def _enable(request: HttpRequest, account: ServiceAccount, data: dict[str, Any]) -> str:
    enable_service_account(context=context_of(request), service_account_id=account.pk, **data)
    return _detail(account)


def _retire(request: HttpRequest, account: ServiceAccount, data: dict[str, Any]) -> str:
    retire_service_account(context=context_of(request), service_account_id=account.pk)
    return _detail(account)


class _StateFilter(admin.SimpleListFilter):
    title = _("State")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(state, text) for state, (_kind, text) in STATES.items()]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ServiceAccount]
    ) -> QuerySet[ServiceAccount]:
        state = self.value()
        if state == "retired":
            return queryset.filter(retired_at__isnull=False)
        if state in STATES:
            return queryset.filter(retired_at=None, user__is_active=state == "active")
        return queryset


@admin.register(ServiceAccount)
class ServiceAccountAdmin(PortalModelAdmin):
    """Business systems that call under their own name."""

    view_action = Action.SERVICE_ACCOUNT_READ
    add_page = FormPage(
        "add",
        Action.SERVICE_ACCOUNT_MANAGE,
        _("New service account"),
        ServiceAccountForm,
        _create,
        button=_("Create service account"),
        intro=_("A business system's own account: it has keys, and it can't log in."),
        done=_("The service account is ready; give it a key."),
    )
    pages = (
        FormPage(
            "key",
            Action.SERVICE_ACCOUNT_MANAGE,
            _("New API key"),
            CreateKeyForm,
            _give_key,
            button=_("Create key"),
            intro=_("The key belongs to the service account, whoever makes it. It is shown once."),
            offered=lambda account: account.state == "active",
        ),
        FormPage(
            "edit",
            Action.SERVICE_ACCOUNT_MANAGE,
            _("Edit"),
            ServiceAccountForm,
            _edit,
            button=_("Save"),
            done=_("Saved."),
            offered=lambda account: account.retired_at is None,
        ),
        FormPage(
            "disable",
            Action.SERVICE_ACCOUNT_MANAGE,
            _("Disable"),
            ReasonForm,
            _disable,
            button=_("Disable service account"),
            intro=_("Its keys are refused from the next request on, until it is enabled again."),
            done=_("The service account is disabled."),
            danger=True,
            offered=lambda account: account.state == "active",
        ),
        FormPage(
            "enable",
            Action.SERVICE_ACCOUNT_MANAGE,
            _("Enable"),
            ReasonForm,
            _enable,
            button=_("Enable service account"),
            intro=_("Its keys work again. Keys that were revoked stay revoked."),
            done=_("The service account works again."),
            offered=lambda account: account.state == "disabled",
        ),
        FormPage(
            "retire",
            Action.SERVICE_ACCOUNT_MANAGE,
            _("Retire"),
            ServiceForm,
            _retire,
            button=_("Retire service account"),
            intro=_(
                "Its keys are revoked. This can't be undone. Jobs, usage and the audit trail go on "
                "naming it."
            ),
            done=_("The service account is retired."),
            danger=True,
            offered=lambda account: account.retired_at is None,
        ),
    )
    detail_template = "site/service_account.html"
    empty_title = _("No service account yet")
    empty_text = _("Make one for each business system, so that its keys don't hang on a person.")
    list_text = _("Business systems that call under their own name, not under a person's.")
    list_display = ("name", "state_label", "live_keys", "responsible_name", "created_at")
    list_filter = (_StateFilter,)
    search_fields = ("name", "description")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ServiceAccount]:
        return service_accounts()

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, account: ServiceAccount) -> tuple[str, str]:
        kind, text = STATES[account.state]
        return kind, str(text)

    @display(description=_("Keys that work"))
    def live_keys(self, account: Any) -> int:
        return int(account.live_keys)

    @display(description=_("Responsible"), ordering="responsible__email")
    def responsible_name(self, account: Any) -> str:
        email: str = account.responsible.email
        return email if account.responsible_is_here else gettext("%s, no longer here") % email

    def detail_context(self, request: HttpRequest, obj: ServiceAccount) -> dict[str, Any]:
        now = timezone.now()
        facts: list[tuple[Text, Any]] = [
            (_("State"), STATES[obj.state][1]),
            (_("Description"), obj.description),
            (_("Responsible"), self.responsible_name(obj)),
            (_("Created"), obj.created_at),
            (_("Id"), obj.pk),
        ]
        if obj.retired_at is not None:
            facts.append((_("Retired at"), obj.retired_at))
        found = keys().filter(user_id=obj.pk).order_by("-created_at")[:100]
        return {"facts": facts, "keys": [(key, *key_state(key, now)) for key in found]}
