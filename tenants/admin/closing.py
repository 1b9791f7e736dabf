"""Closing a tenant: its forms, what the tenant's page shows of it, and the certificate's page."""

import json
from dataclasses import replace
from typing import Any, Final

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from portal.core.env import env
from portal.core.pages import INPUT, FormPage, ServiceForm, context_of, may
from tenants.admin.common import ReasonForm
from tenants.closing.selectors import progress_of
from tenants.models import Tenant, TenantExport
from tenants.models.closing import ClosureState, ExportState
from tenants.models.tenant import TenantState
from tenants.permissions import Action
from tenants.services.closing import (
    MOST_GRACE_DAYS,
    close_tenant,
    find_certificate,
    reopen_tenant,
)
from tenants.services.exports import request_export

# What the steps and the certificate name; what a later app adds is shown by its own name.
WORDS: Final[dict[str, str | Promise]] = {
    "tenants_apikey": _("API keys"),
    "tenants_apikeyuse": _("Uses of API keys"),
    "tenants_quota": _("Quotas"),
    "tenants_quotawindow": _("Counters of quotas"),
    "tenants_quotawarning": _("Warnings of quotas"),
    "tenants_membership": _("Memberships"),
    "tenants_ledgerentry": _("Ledger"),
    "tenants_usagebucket": _("Usage sums"),
    "tenants_tenantclosure": _("Decisions to close"),
    "tenants_closurestep": _("Counts of what was erased"),
    "tenants_tenantexport": _("Records of exports"),
    "tenants_tenantcertificate": _("Certificate"),
    "audit_event": _("Audit trail"),
    "audit_body": _("Details of audit events"),
    "audit_leaf": _("Seals of audit events"),
    "inference_job": _("Jobs"),
    "inference_jobpayload": _("Prompts and answers"),
    "inference_fairshare": _("Shares of queues"),
    "exports": _("Files of exports"),
}


def word_for(name: str) -> str | Promise:
    """What a step erases, in words."""
    return WORDS.get(name, name)


class CloseForm(ReasonForm):
    """A decision to close, confirmed by the tenant's name."""

    name = forms.CharField(
        label=_("The tenant's name"),
        max_length=120,
        help_text=_("Type it exactly, so that no other tenant is closed by mistake."),
        widget=forms.TextInput(attrs={**INPUT, "autocomplete": "off"}),
    )
    grace_days = forms.IntegerField(
        label=_("Days of grace"),
        min_value=0,
        max_value=MOST_GRACE_DAYS,
        help_text=_("Until they are over the tenant can be exported and reopened."),
        widget=forms.NumberInput(attrs=INPUT),
    )

    def initial_of(self, subject: Any) -> dict[str, Any]:
        return {"grace_days": env().closing_grace_days}


class NoFieldsForm(ServiceForm):
    """Nothing to fill in: the button says it all."""


def _detail(tenant: Tenant) -> str:
    return reverse("admin:tenants_tenant_change", args=[tenant.pk])


def _close(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    close_tenant(context=context_of(request), tenant_id=tenant.pk, **data)
    return _detail(tenant)


def _reopen(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    reopen_tenant(context=context_of(request), tenant_id=tenant.pk, reason=data["reason"])
    return _detail(tenant)


def _export(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    request_export(context=context_of(request), tenant_id=tenant.pk)
    return _detail(tenant)


CLOSING_PAGES: Final = (
    FormPage(
        "export",
        Action.TENANT_EXPORT,
        _("Export"),
        NoFieldsForm,
        _export,
        button=_("Ask for an export"),
        intro=_(
            "One file with the tenant's settings, members, keys, quotas, jobs, ledger and audit "
            "trail is made in the background. Prompts, answers and secrets are not in it. Asking "
            "and each download stand in the tenant's audit trail."
        ),
        done=_("The export is being made."),
        offered=lambda tenant: tenant.state != TenantState.CLOSED,
    ),
    FormPage(
        "close",
        Action.TENANT_CLOSE,
        _("Close"),
        CloseForm,
        _close,
        button=_("Close tenant"),
        intro=_(
            "Its API keys are revoked for good and its generations cancelled at once. When the "
            "days of grace are over, all it has is deleted and its data key destroyed; the "
            "ledger and the audit trail are kept."
        ),
        done=_("The tenant is closing."),
        danger=True,
        offered=lambda tenant: tenant.state in (TenantState.ACTIVE, TenantState.SUSPENDED),
    ),
    FormPage(
        "reopen",
        Action.TENANT_CLOSE,
        _("Reopen"),
        ReasonForm,
        _reopen,
        button=_("Reopen tenant"),
        intro=_("Its members work again; its API keys stay revoked."),
        done=_("The tenant is open again."),
        offered=lambda tenant: tenant.state == TenantState.CLOSING,
    ),
)


def closing_context(request: HttpRequest, tenant: Tenant) -> dict[str, Any]:
    """What a tenant's page shows of its closing and its exports; inside the platform's scope."""
    shown: dict[str, Any] = {}
    progress = progress_of(tenant.pk)
    if progress is not None and progress.closure.state != ClosureState.REOPENED:
        shown["closing"] = {
            "closure": progress.closure,
            "progress": progress,
            "percent": 100 * progress.steps_done // max(1, progress.steps_total),
            "steps": [(word_for(step.name), step) for step in progress.steps],
        }
    if may(request, Action.TENANT_EXPORT):
        export = TenantExport.objects.filter(tenant=tenant).order_by("-asked_at").first()
        shown["export"] = export
        if export is not None and export.state == ExportState.READY:
            shown["export_file"] = f"/api/v1/tenants/{tenant.pk}/export/file"
    return shown


def certificate_page(request: HttpRequest, tenant: Tenant, page: dict[str, Any]) -> HttpResponse:
    """The certificate in words."""
    context = replace(context_of(request), tenant_id=None)
    certificate = find_certificate(context=context, tenant_id=tenant.pk)
    document = json.loads(certificate.document, object_hook=_with_times)
    deletion, kept = document.get("deletion", {}), document.get("kept", {})
    page |= {
        "certificate": certificate,
        "document": document,
        "erased": [(word_for(step["what"]), step) for step in deletion.get("erased", [])],
        "kept_tables": [word_for(name) for name in kept.get("tables", {})],
        "file": f"/api/v1/tenants/{tenant.pk}/certificate",
    }
    return TemplateResponse(request, "site/certificate.html", page).render()


def _with_times(found: dict[str, Any]) -> dict[str, Any]:
    """The same object, with times as times, so that the page writes them in the reader's way."""
    return {
        name: parse_datetime(value) if name == "at" or name.endswith("_at") else value
        for name, value in found.items()
    }
