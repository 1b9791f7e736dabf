"""Accounts: for administrators of the platform."""

from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from portal.core.actors import PlatformRole
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
from portal.core.tenancy import platform_scope
from tenants.admin.common import ReasonForm, secret_page
from tenants.models import Membership, User
from tenants.models.people import PLATFORM_ROLE_CHOICES
from tenants.permissions import Action
from tenants.services.users import (
    create_user,
    deactivate_user,
    reactivate_user,
    set_platform_role,
)

_ROLE_HELP = _("One person is never two of the three administrators, nor a member of a tenant.")


def _role_field() -> forms.TypedChoiceField:
    return forms.TypedChoiceField(
        label=_("Platform role"),
        choices=[("", _("None")), *PLATFORM_ROLE_CHOICES],
        coerce=PlatformRole,
        empty_value=None,
        required=False,
        help_text=_ROLE_HELP,
        widget=forms.Select(attrs=INPUT),
    )


class CreateUserForm(ServiceForm):
    email = forms.EmailField(
        label=_("E-mail address"), max_length=254, widget=forms.EmailInput(attrs=INPUT)
    )
    full_name = forms.CharField(
        label=_("Name"), max_length=120, required=False, widget=forms.TextInput(attrs=INPUT)
    )
    platform_role = _role_field()

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        if not may(request, Action.USER_SET_ROLE):
            del self.fields["platform_role"]


class RoleForm(ServiceForm):
    platform_role = _role_field()


def _detail(user: User) -> str:
    return reverse("admin:tenants_user_change", args=[user.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str | HttpResponse:
    made = create_user(context=context_of(request), **data)
    if made.password is None:
        return _detail(made.user)
    return secret_page(
        request,
        title=_("The account is ready"),
        text=_(
            "This is the password. Hand it over safely: it is not shown again. "
            "It can be changed after log-in."
        ),
        secret=made.password,
        email=made.user.email,
        back=_detail(made.user),
    )


def _deactivate(request: HttpRequest, user: User, data: dict[str, Any]) -> str:
    deactivate_user(context=context_of(request), user_id=user.pk, reason=data["reason"])
    return _detail(user)


def _reactivate(request: HttpRequest, user: User, data: dict[str, Any]) -> str:
    reactivate_user(context=context_of(request), user_id=user.pk, reason=data["reason"])
    return _detail(user)


def _set_role(request: HttpRequest, user: User, data: dict[str, Any]) -> str:
    set_platform_role(
        context=context_of(request), user_id=user.pk, platform_role=data["platform_role"]
    )
    return _detail(user)


@admin.register(User)
class UserAdmin(PortalModelAdmin):
    """Every account of the installation."""

    view_action = Action.USER_READ
    side = "platform"
    add_page = FormPage(
        "add",
        Action.USER_CREATE,
        _("New user"),
        CreateUserForm,
        _create,
        button=_("Create user"),
        intro=_("A password is made and shown once. Tenants' owners add their own members."),
    )
    pages = (
        FormPage(
            "role",
            Action.USER_SET_ROLE,
            _("Platform role"),
            RoleForm,
            _set_role,
            button=_("Save"),
            done=_("Saved."),
        ),
        FormPage(
            "deactivate",
            Action.USER_DEACTIVATE,
            _("Deactivate"),
            ReasonForm,
            _deactivate,
            button=_("Deactivate user"),
            intro=_("Sessions and API keys of this person stop working at the next request."),
            done=_("The user is deactivated."),
            danger=True,
            offered=lambda user: user.is_active,
        ),
        FormPage(
            "reactivate",
            Action.USER_DEACTIVATE,
            _("Reactivate"),
            ReasonForm,
            _reactivate,
            button=_("Reactivate user"),
            intro=_("The person can log in again. Keys that were revoked stay revoked."),
            done=_("The user can log in again."),
            offered=lambda user: not user.is_active,
        ),
    )
    detail_template = "site/user.html"
    empty_title = _("No user yet")
    empty_text = _("People log in with their e-mail address and a password.")
    list_display = ("email", "full_name", "platform_role_label", "state_label", "created_at")
    list_filter = ("platform_role", "is_active")
    search_fields = ("email", "full_name")
    ordering = ("email",)

    @display(description=_("Platform role"), ordering="platform_role")
    def platform_role_label(self, user: User) -> str:
        return str(user.get_platform_role_display() or "")

    @display(description=_("State"), ordering="is_active", label=STATUS_KINDS)
    def state_label(self, user: User) -> tuple[str, str]:
        if user.is_active:
            return "success", str(_("Active"))
        return "danger", str(_("Deactivated"))

    def detail_context(self, request: HttpRequest, obj: User) -> dict[str, Any]:
        context = replace(context_of(request), tenant_id=None)
        with platform_scope(context, reason="a user's memberships are listed"):
            memberships = list(
                Membership.objects.filter(user=obj)
                .select_related("tenant")
                .order_by("tenant__name")
            )
        return {
            "facts": [
                (_("Name"), obj.full_name),
                (_("State"), _("Active") if obj.is_active else _("Deactivated")),
                (_("Platform role"), obj.get_platform_role_display()),
                (_("Last log-in"), obj.last_login),
                (_("Created"), obj.created_at),
                (_("Id"), obj.pk),
            ],
            "memberships": memberships,
        }
