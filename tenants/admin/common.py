"""What several of these pages share."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from portal.core.pages import INPUT, ServiceForm

TENANT_STATE_KINDS = {
    "active": "success",
    "suspended": "danger",
    "closing": "warning",
    "closed": "default",
}


class ReasonForm(ServiceForm):
    """Why something is done; it enters the audit trail."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=200,
        help_text=_("It stands in the audit trail, beside your name."),
        widget=forms.TextInput(attrs=INPUT),
    )


def secret_page(
    request: HttpRequest,
    *,
    title: str | Promise,
    text: str | Promise,
    secret: str,
    back: str,
    **more: Any,
) -> HttpResponse:
    """Shows a secret, this once.

    Args:
        text: what it is for and that it is not shown again.
        back: where the button below leads.
        more: further context: ``curl``, ``email``.
    """
    context = {
        **admin.site.each_context(request),
        "title": title,
        "text": text,
        "secret": secret,
        "back": back,
        **more,
    }
    return TemplateResponse(request, "site/secret.html", context)
