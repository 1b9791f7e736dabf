"""Admin pages of the audit trail: read-only, and every reading is recorded."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from audit.models import AuditEvent, Category, Outcome
from audit.selectors import EventFilter, Position, read_event, read_events
from portal.core.actors import NIL_TENANT, Context
from portal.core.pages import INPUT, PortalModelAdmin, Text, context_of, may

READ = "audit.read"
READ_ALL = "audit.read_all"


_holder_of: Callable[[UUID], str] | None = None


def on_key_holder(find: Callable[[UUID], str]) -> None:
    """Registers what says, in a tenant's scope, whose a key is; keys are a floor above."""
    global _holder_of
    _holder_of = find


class FilterForm(forms.Form):
    """The search above the list; field names are those of ``EventFilter``."""

    since = forms.DateTimeField(label=_("From (UTC)"), required=False)
    until = forms.DateTimeField(label=_("Until (UTC)"), required=False)
    category = forms.ChoiceField(
        label=_("About"), required=False, choices=[("", _("Everything")), *Category.choices]
    )
    actor = forms.CharField(label=_("Actor"), required=False, max_length=254)
    action = forms.CharField(label=_("Action"), required=False, max_length=80)
    outcome = forms.ChoiceField(
        label=_("Outcome"), required=False, choices=[("", _("Any")), *Outcome.choices]
    )
    subject = forms.CharField(label=_("Object or its id"), required=False, max_length=254)
    request_id = forms.CharField(label=_("Request"), required=False, max_length=128)
    tenant_id = forms.UUIDField(label=_("Tenant's id"), required=False)

    def __init__(self, *args: Any, all_tenants: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not all_tenants:
            del self.fields["tenant_id"]
        for name, field in self.fields.items():
            field.widget.attrs.update(INPUT)
            if name in ("since", "until"):
                field.widget.input_type = "datetime-local"

    def wanted(self) -> EventFilter:
        """The filter of a valid form."""
        return EventFilter(**{n: v for n, v in self.cleaned_data.items() if v})


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One column before and after, in words."""

    field: str
    before: str
    after: str


def _words(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, str):
        return value or "“”"
    return json.dumps(value, ensure_ascii=False)


def changes_of(
    before: dict[str, Any] | None, after: dict[str, Any] | None
) -> tuple[list[FieldChange], list[FieldChange]]:
    """The columns that differ, and those that stayed as they were."""
    old, new = before or {}, after or {}
    changed, same = [], []
    for name in sorted(old.keys() | new.keys()):
        change = FieldChange(name, _words(old.get(name)), _words(new.get(name)))
        if before is not None and after is not None and old.get(name) == new.get(name):
            same.append(change)
        else:
            changed.append(change)
    return changed, same


@admin.register(AuditEvent)
class AuditEventAdmin(PortalModelAdmin):
    """The trail of one tenant for its auditors, of all for the audit administrator."""

    view_action = READ
    side = "any"
    detail_template = "site/event.html"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if context_of(request).tenant_id is None:
            return may(request, READ_ALL)
        return may(request, READ)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = context_of(request)
        all_tenants = context.tenant_id is None
        form = FilterForm(request.GET, all_tenants=all_tenants)
        page = {
            **self.admin_site.each_context(request),
            "title": capfirst(self.opts.verbose_name_plural),
            "form": form,
            "all_tenants": all_tenants,
            "nil_tenant": NIL_TENANT,
        }
        if not form.is_valid():
            return TemplateResponse(request, "site/events.html", page, status=400)
        before = request.GET.get("before")
        found = read_events(
            context, form.wanted(), before=Position.parse(before) if before else None
        )
        query = request.GET.copy()
        query.pop("before", None)
        page |= {
            "events": found.events,
            "filtered": bool(form.wanted().described()),
            "first_page": (query.urlencode() or "first") if before else "",
        }
        if found.following:
            query["before"] = str(found.following)
            page["next_page"] = query.urlencode()
        return TemplateResponse(request, "site/events.html", page)

    def detail_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        event, related = read_event(context_of(request), object_id)
        body = getattr(event, "body", None)
        changed, same = changes_of(getattr(body, "before", None), getattr(body, "after", None))
        page = {
            **self.page_context(request, event.action),
            "facts": _facts(event, _holder(context_of(request), event)),
            "changes": changed,
            "same": same,
            "detail": [(n, _words(v)) for n, v in (getattr(body, "detail", None) or {}).items()],
            "events": related,
        }
        return TemplateResponse(request, self.detail_template, page)


def _holder(context: Context, event: AuditEvent) -> str:
    """Whose the acting key is, as they are called today; empty across tenants."""
    if _holder_of is None or event.api_key_id is None or context.tenant_id is None:
        return ""
    return _holder_of(event.api_key_id)


def _facts(event: AuditEvent, holder: str) -> list[tuple[Text, Any]]:
    late = event.recorded_at - event.occurred_at > timedelta(seconds=1)
    facts: list[tuple[Text, Any]] = [
        (_("Recorded"), event.recorded_at),
        (_("Occurred"), event.occurred_at if late else None),
        (_("About"), event.get_category_display()),
        (_("Outcome"), event.get_outcome_display()),
        (_("Reason"), event.reason),
        (_("Actor"), event.actor_label),
        (_("Actor's kind"), event.actor_type),
        (_("Actor's id"), event.actor_id),
        (_("On behalf of"), event.on_behalf_of),
        (_("API key"), event.api_key_id),
        (_("The key belongs to"), holder),
        (_("Authenticated by"), event.auth_method),
        (_("Address"), event.address),
        (_("Object's kind"), event.object_type),
        (_("Object"), event.object_label),
        (_("Object's id"), event.object_id),
        (_("Request"), event.request_id),
        (_("Caller's request"), event.client_request_id),
        (_("Tenant's id"), None if event.tenant_id == NIL_TENANT else event.tenant_id),
        (_("Id"), event.pk),
    ]
    return [(label, value) for label, value in facts if value not in (None, "")]
