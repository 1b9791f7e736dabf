"""Members of the active tenant."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from portal.core.actors import TenantRole
from portal.core.pages import (
    INPUT,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    context_of,
    display,
)
from tenants.admin.common import secret_page
from tenants.models import Membership
from tenants.models.people import TENANT_ROLE_CHOICES
from tenants.permissions import Action
from tenants.services.members import add_member, change_member_role, remove_member


def _role_field() -> forms.TypedChoiceField:
    return forms.TypedChoiceField(
        label=_("Role"),
        choices=TENANT_ROLE_CHOICES,
        coerce=TenantRole,
        initial=TenantRole.DEVELOPER.value,
        help_text=_(
            "Owners manage members, keys and quotas. Developers make keys and use the playground. "
            "Viewers only look. Auditors read jobs and the audit trail."
        ),
        widget=forms.Select(attrs=INPUT),
    )


class AddMemberForm(ServiceForm):
    email = forms.EmailField(
        label=_("E-mail address"), max_length=254, widget=forms.EmailInput(attrs=INPUT)
    )
    full_name = forms.CharField(
        label=_("Name"),
        max_length=120,
        required=False,
        help_text=_("Used where the person has no account yet."),
        widget=forms.TextInput(attrs=INPUT),
    )
    role = _role_field()


class RoleForm(ServiceForm):
    role = _role_field()


def _list() -> str:
    return reverse("admin:tenants_membership_changelist")


def _add(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str | HttpResponse:
    added = add_member(context=context_of(request), **data)
    if added.password is None:
        return _list()
    return secret_page(
        request,
        title=_("The member is added"),
        text=_(
            "This is the new account's password. Hand it over safely: it is not shown again. "
            "It can be changed after log-in."
        ),
        secret=added.password,
        email=added.membership.user.email,
        back=_list(),
    )


def _change_role(request: HttpRequest, membership: Membership, data: dict[str, Any]) -> str:
    change_member_role(context=context_of(request), membership_id=membership.pk, role=data["role"])
    return _list()


def _remove(request: HttpRequest, membership: Membership, data: dict[str, Any]) -> str:
    remove_member(context=context_of(request), membership_id=membership.pk)
    return _list()


@admin.register(Membership)
class MembershipAdmin(PortalModelAdmin):
    """Who belongs to the tenant, and as what."""

    view_action = Action.MEMBER_READ
    add_page = FormPage(
        "add",
        Action.MEMBER_MANAGE,
        _("Add member"),
        AddMemberForm,
        _add,
        button=_("Add member"),
        done=_("The member is added."),
    )
    pages = (
        FormPage(
            "role",
            Action.MEMBER_MANAGE,
            _("Change role"),
            RoleForm,
            _change_role,
            button=_("Save"),
            done=_("The role is changed."),
        ),
        FormPage(
            "remove",
            Action.MEMBER_MANAGE,
            _("Remove"),
            ServiceForm,
            _remove,
            button=_("Remove member"),
            intro=_(
                "The person no longer sees this tenant, and the API keys they made "
                "here are revoked."
            ),
            done=_("The member is removed."),
            danger=True,
        ),
    )
    detail_template = "site/detail.html"
    empty_title = _("No member yet")
    empty_text = _("Add the people who are to work in this tenant.")
    list_display = ("email", "full_name", "role_name", "created_at")
    list_filter = ("role",)
    search_fields = ("user__email", "user__full_name")
    ordering = ("user__email",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return Membership.objects.select_related("user")

    @display(description=_("E-mail address"), ordering="user__email")
    def email(self, membership: Membership) -> str:
        return membership.user.email

    @display(description=_("Name"), ordering="user__full_name")
    def full_name(self, membership: Membership) -> str:
        return membership.user.full_name

    @display(description=_("Role"), ordering="role")
    def role_name(self, membership: Membership) -> str:
        return str(membership.get_role_display())

    def detail_context(self, request: HttpRequest, obj: Membership) -> dict[str, Any]:
        return {
            "facts": [
                (_("E-mail address"), obj.user.email),
                (_("Name"), obj.user.full_name),
                (_("Role"), obj.get_role_display()),
                (_("Since"), obj.created_at),
            ]
        }
