"""Tenants: for administrators of the platform."""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.validators import validate_slug
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _

from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    context_of,
    display,
)
from portal.core.tenancy import platform_scope
from tenants.admin.closing import CLOSING_PAGES, certificate_page, closing_context
from tenants.admin.common import TENANT_STATE_KINDS, ReasonForm, secret_page
from tenants.identity.sessions import enter_tenant
from tenants.models import Tenant
from tenants.models.tenant import TenantState
from tenants.permissions import Action
from tenants.services.tenants import create_tenant, edit_tenant, resume_tenant, suspend_tenant


def _time_zone_field() -> forms.ChoiceField:
    zones = [(z, z) for z in sorted(available_timezones()) if "/" in z or z == "UTC"]
    return forms.ChoiceField(
        label=_("Time zone"),
        choices=zones,
        initial="UTC",
        help_text=_("Daily and monthly quotas begin at midnight here."),
        widget=forms.Select(attrs=INPUT),
    )


class CreateTenantForm(ServiceForm):
    name = forms.CharField(label=_("Name"), max_length=120, widget=forms.TextInput(attrs=INPUT))
    slug = forms.CharField(
        label=_("Short name"),
        max_length=60,
        validators=[validate_slug],
        help_text=_("Letters, digits and hyphens; it can't be changed later."),
        widget=forms.TextInput(attrs=INPUT),
    )
    time_zone = _time_zone_field()
    owner_email = forms.EmailField(
        label=_("First owner's e-mail address"),
        max_length=254,
        help_text=_("An account is made where there is none yet; its password is shown once."),
        widget=forms.EmailInput(attrs=INPUT),
    )
    owner_name = forms.CharField(
        label=_("First owner's name"),
        max_length=120,
        required=False,
        widget=forms.TextInput(attrs=INPUT),
    )


class EditTenantForm(ServiceForm):
    name = forms.CharField(label=_("Name"), max_length=120, widget=forms.TextInput(attrs=INPUT))
    time_zone = _time_zone_field()
    weight = forms.IntegerField(
        label=_("Weight"),
        min_value=1,
        max_value=100,
        help_text=_("Share of a busy queue, relative to other tenants."),
        widget=forms.NumberInput(attrs=INPUT),
    )


def _detail(tenant: Tenant) -> str:
    return reverse("admin:tenants_tenant_change", args=[tenant.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str | HttpResponse:
    made = create_tenant(context=context_of(request), **data)
    if made.password is None:
        return _detail(made.tenant)
    return secret_page(
        request,
        title=_("The tenant is ready"),
        text=_(
            "This is the first owner's password. Hand it over safely: it is not shown again. "
            "The owner can change it after log-in."
        ),
        secret=made.password,
        email=made.owner.email,
        back=_detail(made.tenant),
    )


def _edit(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    edit_tenant(context=context_of(request), tenant_id=tenant.pk, **data)
    return _detail(tenant)


def _suspend(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    suspend_tenant(context=context_of(request), tenant_id=tenant.pk, reason=data["reason"])
    return _detail(tenant)


def _resume(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    resume_tenant(context=context_of(request), tenant_id=tenant.pk, reason=data["reason"])
    return _detail(tenant)


def _enter(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    enter_tenant(
        context=context_of(request),
        session=request.session,
        tenant_id=tenant.pk,
        reason=data["reason"],
    )
    return reverse("admin:index")


@admin.register(Tenant)
class TenantAdmin(PortalModelAdmin):
    """Every tenant, without what is inside it: that takes entering."""

    view_action = Action.TENANT_READ
    side = "platform"
    add_page = FormPage(
        "add",
        Action.TENANT_CREATE,
        _("New tenant"),
        CreateTenantForm,
        _create,
        button=_("Create tenant"),
        done=_("The tenant is ready; its owner logs in with the password they have."),
    )
    pages = (
        FormPage(
            "enter",
            Action.TENANT_ENTER,
            _("Enter tenant"),
            ReasonForm,
            _enter,
            button=_("Enter"),
            intro=_(
                "You will see this tenant's members, keys and more, as far as your role goes. "
                "Entering, and everything you do inside, stands in the tenant's audit trail."
            ),
        ),
        FormPage(
            "edit",
            Action.TENANT_EDIT,
            _("Edit"),
            EditTenantForm,
            _edit,
            button=_("Save"),
            done=_("Saved."),
            offered=lambda tenant: tenant.state in (TenantState.ACTIVE, TenantState.SUSPENDED),
        ),
        FormPage(
            "suspend",
            Action.TENANT_SUSPEND,
            _("Suspend"),
            ReasonForm,
            _suspend,
            button=_("Suspend tenant"),
            intro=_("Its API keys and members are refused from the next request on."),
            done=_("The tenant is suspended."),
            danger=True,
            offered=lambda tenant: tenant.state == TenantState.ACTIVE,
        ),
        FormPage(
            "resume",
            Action.TENANT_SUSPEND,
            _("Resume"),
            ReasonForm,
            _resume,
            button=_("Resume tenant"),
            intro=_("Its API keys and members work again."),
            done=_("The tenant works again."),
            offered=lambda tenant: tenant.state == TenantState.SUSPENDED,
        ),
        *CLOSING_PAGES,
    )
    detail_template = "site/tenant.html"
    empty_title = _("No tenant yet")
    empty_text = _(
        "A tenant is an organisation, or a part of one, that shares nothing with another."
    )
    list_display = ("name", "slug", "state_label", "members", "time_zone", "created_at")
    list_filter = ("state",)
    search_fields = ("name", "slug")
    ordering = ("name",)

    def scope(self, request: HttpRequest) -> AbstractContextManager[None]:
        context = replace(context_of(request), tenant_id=None)
        return platform_scope(context, reason="tenants are listed")

    def get_urls(self) -> list[URLPattern]:
        certificate = self.admin_site.admin_view(self.certificate_view)
        own = path("<uuid:object_id>/certificate/", certificate, name="tenants_tenant_certificate")
        return [*super().get_urls(), own]

    def certificate_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """The certificate of a closed tenant, to be printed."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        with self.scope(request):
            tenant = self.get_subject(request, object_id)
            page = self.page_context(request, _("Certificate of deletion"), tenant)
            return certificate_page(request, tenant, page)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        return Tenant.objects.annotate(member_count=Count("memberships"))

    @display(description=_("State"), ordering="state", label=STATUS_KINDS)
    def state_label(self, tenant: Tenant) -> tuple[str, str]:
        return TENANT_STATE_KINDS[tenant.state], str(tenant.get_state_display())

    @display(description=_("Members"), ordering="member_count")
    def members(self, tenant: Any) -> int:
        return int(tenant.member_count)

    def detail_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "facts": [
                (_("Short name"), obj.slug),
                (_("State"), obj.get_state_display()),
                (_("Members"), obj.member_count),
                (_("Time zone"), obj.time_zone),
                (_("Weight"), obj.weight),
                (_("Created"), obj.created_at),
                (_("Id"), obj.pk),
            ],
            **closing_context(request, obj),
        }
