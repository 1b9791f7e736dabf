"""Pages of connections to Dify: how they are, and what can be done about it."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from knowledge.admin.sync import SYNC_PAGES, sync_context
from knowledge.connections import selectors, services
from knowledge.models import Connection, DriftPolicy, Health
from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Text,
    context_of,
    display,
    in_words,
)
from tenants.permissions import Action

HEALTH_KINDS = {Health.HEALTHY: "success", Health.FAILING: "danger"}


# A browser is not to offer somebody's password for a key, nor to keep the key.
_KEY_INPUT = {**INPUT, "autocomplete": "new-password"}


class NewConnectionForm(ServiceForm):
    name = forms.CharField(
        label=_("Name"),
        max_length=services.MOST_NAME_CHARS,
        widget=forms.TextInput(attrs=INPUT),
    )
    base_url = forms.CharField(
        label=_("Address"),
        max_length=services.MOST_URL_CHARS,
        help_text=_("Where Dify's own pages open, such as https://dify.example.com."),
        widget=forms.URLInput(attrs=INPUT),
    )
    workspace_id = forms.UUIDField(
        label=_("Workspace id"),
        help_text=_("Of the workspace in Dify that is this tenant's."),
        widget=forms.TextInput(attrs=INPUT),
    )
    console_key = forms.CharField(
        label=_("Console key"),
        max_length=services.MOST_KEY_CHARS,
        help_text=_("Dify's ADMIN_API_KEY. It is encrypted, and never shown again."),
        widget=forms.PasswordInput(attrs=_KEY_INPUT),
    )
    dataset_key = forms.CharField(
        label=_("Dataset key"),
        max_length=services.MOST_KEY_CHARS,
        help_text=_(
            "Made in Dify under Knowledge, Service API. It is encrypted, and never shown again."
        ),
        widget=forms.PasswordInput(attrs=_KEY_INPUT),
    )
    drift_policy = forms.ChoiceField(
        label=_("If somebody changes things in Dify"),
        choices=DriftPolicy.choices,
        initial=DriftPolicy.ASK,
        widget=forms.Select(attrs=INPUT),
    )


class EditConnectionForm(NewConnectionForm):
    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        for name in ("console_key", "dataset_key"):
            self.fields[name].required = False
            self.fields[name].help_text = _("Leave it empty to keep the present one.")


class ShareForm(ServiceForm):
    tenant_id = forms.UUIDField(
        label=_("Tenant id"),
        help_text=_("It stands on the tenant's page."),
        widget=forms.TextInput(attrs=INPUT),
    )
    organisation = forms.CharField(
        label=_("Organisation"),
        max_length=services.MOST_ORGANISATION_CHARS,
        help_text=_("Whose parts both tenants are. Another organisation's need their own Dify."),
        widget=forms.TextInput(attrs=INPUT),
    )


class LicenceForm(ServiceForm):
    reference = forms.CharField(
        label=_("Reference"),
        max_length=services.MOST_REFERENCE_CHARS,
        help_text=_("Where it stands, such as the number of the agreement."),
        widget=forms.TextInput(attrs=INPUT),
    )


class DeleteForm(ServiceForm):
    forget = forms.BooleanField(
        label=_("Forget what is still to be deleted in Dify"),
        required=False,
        help_text=_("It stays there. Choose this only where that Dify is gone for good."),
    )


class WorkspaceForm(ServiceForm):
    name = forms.CharField(
        label=_("Name"),
        max_length=services.MOST_NAME_CHARS,
        widget=forms.TextInput(attrs=INPUT),
    )
    owner_email = forms.EmailField(
        label=_("Owner"),
        help_text=_("The address of an account of that Dify."),
        widget=forms.EmailInput(attrs=INPUT),
    )
    inner_key = forms.CharField(
        label=_("Inner key"),
        max_length=services.MOST_KEY_CHARS,
        help_text=_("Dify's INNER_API_KEY. It is used this once and kept nowhere."),
        widget=forms.PasswordInput(attrs=_KEY_INPUT),
    )

    def initial_of(self, subject: Connection) -> dict[str, Any]:
        return {}


def _detail(connection: Connection | UUID) -> str:
    pk = connection if isinstance(connection, UUID) else connection.pk
    return reverse("admin:knowledge_connection_change", args=[pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    return _detail(services.create_connection(context=context_of(request), **data))


def _edit(request: HttpRequest, connection: Connection, data: dict[str, Any]) -> str:
    services.edit_connection(context=context_of(request), connection_id=connection.pk, **data)
    return _detail(connection)


def _check(request: HttpRequest, connection: Connection, data: dict[str, Any]) -> str:
    checked = services.check_connection(context=context_of(request), connection_id=connection.pk)
    if checked.health == Health.HEALTHY:
        messages.success(request, gettext("Dify answers, and both keys work."))
    return _detail(connection)


def _share(request: HttpRequest, connection: Connection, data: dict[str, Any]) -> str:
    services.share_connection(context=context_of(request), connection_id=connection.pk, **data)
    return _detail(connection)


def _confirm(request: HttpRequest, connection: Connection, data: dict[str, Any]) -> str:
    services.confirm_licence(context=context_of(request), connection_id=connection.pk, **data)
    return _detail(connection)


def _workspace(request: HttpRequest, connection: Connection, data: dict[str, Any]) -> str:
    made = services.create_workspace(
        context=context_of(request), connection_id=connection.pk, **data
    )
    text = gettext("The workspace %(name)s is made; its id is %(id)s.")
    messages.success(request, text % {"name": made.name, "id": made.id})
    return _detail(connection)


def _delete(request: HttpRequest, connection: Connection, data: dict[str, Any]) -> str:
    services.delete_connection(context=context_of(request), connection_id=connection.pk, **data)
    return reverse("admin:knowledge_connection_changelist")


@admin.register(Connection)
class ConnectionAdmin(PortalModelAdmin):
    """The instances of Dify where the active tenant's knowledge runs."""

    view_action = Action.CONNECTION_READ
    add_page = FormPage(
        "add",
        Action.CONNECTION_EDIT,
        _("Connect a Dify"),
        NewConnectionForm,
        _create,
        button=_("Test and save"),
        intro=_("Both keys are tried before anything is saved."),
        done=_("The connection works."),
    )
    pages = (
        *SYNC_PAGES,
        FormPage(
            "check",
            Action.CONNECTION_EDIT,
            _("Test now"),
            ServiceForm,
            _check,
            button=_("Test now"),
            intro=_("Dify is asked for its version, and both keys are tried."),
        ),
        FormPage(
            "edit",
            Action.CONNECTION_EDIT,
            _("Edit"),
            EditConnectionForm,
            _edit,
            button=_("Test and save"),
            intro=_("Where the connection leads is tried before it is saved."),
            done=_("Saved."),
        ),
        FormPage(
            "share",
            Action.CONNECTION_SHARE,
            _("Share"),
            ShareForm,
            _share,
            button=_("Share the connection"),
            intro=_(
                "Another tenant of the same organisation works in the same workspace. It sees "
                "neither the keys nor what is this tenant's."
            ),
            done=_("The other tenant has the connection."),
            offered=lambda connection: connection.shared_from is None,
        ),
        FormPage(
            "licence",
            Action.CONNECTION_SHARE,
            _("Confirm a licence"),
            LicenceForm,
            _confirm,
            button=_("Confirm"),
            intro=_(
                "Dify's licence allows one instance to hold workspaces of several tenants only "
                "with written authorisation. Your name and the time are written down."
            ),
            done=_("Written down."),
        ),
        FormPage(
            "workspace",
            Action.CONNECTION_SHARE,
            _("Make a workspace"),
            WorkspaceForm,
            _workspace,
            button=_("Make the workspace"),
            intro=_("In this Dify, for a connection of its own."),
            offered=lambda connection: connection.licence_confirmed_at is not None,
        ),
        FormPage(
            "delete",
            Action.CONNECTION_EDIT,
            _("Delete"),
            DeleteForm,
            _delete,
            button=_("Delete the connection"),
            intro=_("The portal forgets it and its keys. In Dify nothing is changed."),
            done=_("The connection is deleted."),
            danger=True,
        ),
    )
    detail_template = "site/connection.html"
    list_text = _("Where knowledge bases and apps of this tenant run.")
    empty_title = _("No Dify is connected")
    empty_text = _("Connect an instance of Dify to run knowledge bases and apps there.")
    list_display = ("name", "state_label", "words", "version", "base_url", "checked_at")
    list_filter = ("health",)
    search_fields = ("name", "base_url", "workspace_name")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Connection]:
        return selectors.connections()

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, connection: Connection) -> tuple[str, str]:
        return HEALTH_KINDS[Health(connection.health)], str(connection.get_health_display())

    @display(description=_("What was found"))
    def words(self, connection: Connection) -> str:
        if connection.problem:
            return in_words(connection.problem)
        if selectors.licence_needed(connection):
            return gettext("Works; a licence for several workspaces is to be confirmed.")
        return gettext("Dify answers, and both keys work.")

    def detail_context(self, request: HttpRequest, obj: Connection) -> dict[str, Any]:
        can = obj.capabilities
        facts: list[tuple[Text, Any]] = [
            (_("State"), obj.get_health_display()),
            (_("Since"), obj.since),
            (_("Checked"), obj.checked_at),
            (_("Address"), obj.base_url),
            (_("Version"), obj.version),
            (_("Workspace"), obj.workspace_name),
            (_("Workspace id"), obj.workspace_id),
            (_("On drift"), obj.get_drift_policy_display()),
            (_("Shared within"), obj.organisation),
            (_("Semantic search"), _yes(can["high_quality"], _("No embedding model in Dify yet"))),
            (
                _("Calls the portal's models"),
                _yes(can["gateway_provider"], _("The OpenAI-compatible plugin is missing")),
            ),
            (_("Id"), obj.pk),
        ]
        if obj.licence_confirmed_at is not None:
            facts += [
                (_("Licence"), obj.licence_reference),
                (_("Confirmed by"), obj.licence_confirmed_by),
                (_("Confirmed at"), obj.licence_confirmed_at),
            ]
        return {
            "facts": facts,
            "problem": in_words(obj.problem),
            "licence": _licence(obj) if selectors.licence_needed(obj) else "",
            **sync_context(obj),
        }


def _yes(can: bool, without: Text) -> Text:
    return _("Possible") if can else without


def _licence(connection: Connection) -> str:
    count = int(connection.capabilities["workspaces"])
    text = ngettext("This Dify has %(n)s workspace.", "This Dify has %(n)s workspaces.", count) % {
        "n": count
    }
    return f"{text} " + gettext(
        "Dify's licence allows several tenants in one instance only with written authorisation: "
        "an administrator of the platform confirms that it is held, or each tenant gets an "
        "instance of its own."
    )
