"""Exports of the tenant that one is in: asked for, watched, downloaded."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _

from portal.core.errors import Forbidden
from portal.core.pages import STATUS_KINDS, FormPage, PortalModelAdmin, context_of, display
from tenants.admin.closing import NoFieldsForm
from tenants.api.closing import export_download
from tenants.models import TenantExport
from tenants.models.closing import ExportState
from tenants.permissions import Action
from tenants.services.exports import open_export, request_export

_KINDS = {
    ExportState.WAITING: "info",
    ExportState.RUNNING: "info",
    ExportState.READY: "success",
    ExportState.FAILED: "danger",
    ExportState.DELETED: "default",
}


def _ask(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    context = context_of(request)
    if context.tenant_id is None:
        raise Forbidden("Choose a tenant first.", code="no_tenant")
    export = request_export(context=context, tenant_id=context.tenant_id)
    return reverse("admin:tenants_tenantexport_change", args=[export.pk])


@admin.register(TenantExport)
class TenantExportAdmin(PortalModelAdmin):
    """What the tenant takes along: for its owner, and for a system administrator inside it."""

    view_action = Action.TENANT_EXPORT
    add_page = FormPage(
        "add",
        Action.TENANT_EXPORT,
        _("New export"),
        NoFieldsForm,
        _ask,
        button=_("Ask for an export"),
        intro=_(
            "One file with the tenant's settings, members, keys, quotas, jobs, ledger and audit "
            "trail is made in the background. Prompts, answers and secrets are not in it. Asking "
            "and each download stand in the tenant's audit trail."
        ),
        done=_("The export is being made."),
    )
    detail_template = "site/export.html"
    empty_title = _("No export yet")
    empty_text = _("An export holds what the tenant owns, to be kept or taken elsewhere.")
    list_display = ("asked_at", "state_label", "asked_by", "file_size", "expires_at")
    ordering = ("-asked_at",)

    @display(description=_("State"), ordering="state", label=STATUS_KINDS)
    def state_label(self, export: TenantExport) -> tuple[str, str]:
        return _KINDS[ExportState(export.state)], str(export.get_state_display())

    @display(description=_("Size"), ordering="size")
    def file_size(self, export: TenantExport) -> str:
        return "—" if export.size is None else filesizeformat(export.size)

    def get_urls(self) -> list[URLPattern]:
        file = self.admin_site.admin_view(self.file_view)
        own = path("<uuid:object_id>/file/", file, name="tenants_tenantexport_file")
        return [*super().get_urls(), own]

    def file_view(self, request: HttpRequest, object_id: UUID) -> HttpResponseBase:
        """The zip file."""
        context = context_of(request)
        if not self.has_view_permission(request) or context.tenant_id is None:
            raise PermissionDenied
        export, file = open_export(
            context=context, tenant_id=context.tenant_id, export_id=object_id
        )
        return export_download(export, file)

    def detail_context(self, request: HttpRequest, obj: TenantExport) -> dict[str, Any]:
        ready = obj.state == ExportState.READY
        return {
            "facts": [
                (_("State"), obj.get_state_display()),
                (_("Asked for"), obj.asked_at),
                (_("Asked for by"), obj.asked_by),
                (_("Ready"), obj.ready_at),
                (_("Deleted after"), obj.expires_at),
                (_("Rows"), obj.rows_total),
                (_("Size"), self.file_size(obj)),
                (_("SHA-256"), obj.sha256),
                (_("Id"), obj.pk),
            ],
            "under_way": obj.state in (ExportState.WAITING, ExportState.RUNNING),
            "file": self.url("file", obj) if ready else "",
        }
