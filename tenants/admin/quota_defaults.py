"""Default quotas of the active tenant: what every key, or every user, has by itself."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from portal.core.pages import (
    INPUT,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Text,
    context_of,
    display,
)
from tenants.admin.quotas import LimitsForm
from tenants.admin.usage import amount_text, every_limit_label
from tenants.models import QuotaDefault
from tenants.models.quotas import AppliesTo
from tenants.permissions import Action
from tenants.services import delete_quota_default, set_quota_default


class NewDefaultForm(LimitsForm):
    """For whom, and every limit."""

    applies_to = forms.ChoiceField(
        label=_("For"), choices=AppliesTo.choices, widget=forms.Select(attrs=INPUT)
    )

    def limits(self) -> dict[str, int | None]:
        """The limits that were given, so that those of a default there is already stay."""
        return {name: value for name, value in super().limits().items() if value is not None}


def _detail(default: QuotaDefault) -> str:
    return reverse("admin:tenants_quotadefault_change", args=[default.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    made = set_quota_default(
        context=context_of(request), applies_to=data["applies_to"], **data["limits"]
    )
    return _detail(made)


def _edit(request: HttpRequest, default: QuotaDefault, data: dict[str, Any]) -> str:
    set_quota_default(
        context=context_of(request),
        applies_to=default.applies_to,
        model_id=default.model_id,
        **data["limits"],
    )
    return _detail(default)


def _delete(request: HttpRequest, default: QuotaDefault, data: dict[str, Any]) -> str:
    delete_quota_default(context=context_of(request), quota_default_id=default.pk)
    return reverse("admin:tenants_quotadefault_changelist")


@admin.register(QuotaDefault)
class QuotaDefaultAdmin(PortalModelAdmin):
    """Limits that hold for each one without being set for each."""

    view_action = Action.QUOTA_READ
    add_page = FormPage(
        "add",
        Action.QUOTA_EDIT,
        _("New default quota"),
        NewDefaultForm,
        _create,
        button=_("Set limits"),
        intro=_(
            "Each API key, or each user and service account, gets these limits and counters of its "
            "own, future ones included. A limit that is set for one goes before the default."
        ),
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
            intro=_("What has been used counts on. Limits that were set for one alone stay."),
            done=_("The limits hold from the next request on."),
        ),
        FormPage(
            "delete",
            Action.QUOTA_EDIT,
            _("Delete"),
            ServiceForm,
            _delete,
            button=_("Delete default quota"),
            intro=_("Its limits no longer hold for anybody. Limits that were set for one stay."),
            done=_("The default quota is deleted."),
            danger=True,
        ),
    )
    detail_template = "site/detail.html"
    empty_title = _("No default quota yet")
    empty_text = _("With one, every API key or every user is limited without being named.")
    list_text = _("Limits that each key or each user has by itself, inside the tenant's own.")
    sortable_by = ()
    list_display = ("scope_name", "limits", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[QuotaDefault]:
        return QuotaDefault.objects.order_by("applies_to", "pk")

    @display(description=_("For"))
    def scope_name(self, default: QuotaDefault) -> str:
        return str(default)

    @display(description=_("Limits"))
    def limits(self, default: QuotaDefault) -> str:
        return "; ".join(f"{label}: {amount}" for label, amount in limits_text(default))

    def detail_context(self, request: HttpRequest, obj: QuotaDefault) -> dict[str, Any]:
        facts: list[tuple[Text, Any]] = [(_("For"), str(obj)), *limits_text(obj)]
        return {"facts": [*facts, (_("Created"), obj.created_at)]}


def limits_text(default: QuotaDefault) -> list[tuple[Text, str]]:
    """Every limit that a default sets, in words."""
    return [
        (label, amount_text(value, name))
        for name, label in every_limit_label().items()
        if (value := getattr(default, name)) is not None
    ]
