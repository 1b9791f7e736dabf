"""The page of usage: what was charged, split as one likes, and its export."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from portal.core.downloads import Download
from portal.core.errors import Invalid
from portal.core.pages import INPUT, PortalModelAdmin, ServiceForm, context_of
from tenants import services
from tenants.models import UsageBucket
from tenants.permissions import Action
from tenants.usage import (
    Group,
    UsageFrame,
    UsageQuery,
    UsageReader,
    UsageRow,
    crosses_tenants,
    month_to_date,
    usage_frame,
    usage_scope,
)

NANOS = 1_000_000_000
_SPLITS = [
    ("day", _("Day")),
    ("user", _("User")),
    ("key", _("API key")),
    ("model", _("Model")),
    ("day,user", _("Day and user")),
    ("day,key", _("Day and API key")),
    ("day,model", _("Day and model")),
]


class UsageForm(ServiceForm):
    """Which usage is shown."""

    first = forms.DateField(label=_("First day"))
    last = forms.DateField(label=_("Last day"))
    split = forms.ChoiceField(label=_("Split by"), choices=_SPLITS)

    query: UsageQuery

    def __init__(self, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        for name, field in self.fields.items():
            field.widget.attrs.update(INPUT)
            if name != "split":
                field.widget.input_type = "date"

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        if not self.errors:
            groups = tuple(Group(name) for name in values["split"].split(","))
            try:
                self.query = UsageQuery(values["first"], values["last"], groups)
            except Invalid as refusal:
                self.refuse(refusal)
        return values


@admin.register(UsageBucket)
class UsageAdmin(PortalModelAdmin):
    """Usage of the tenant; of every tenant for the system administrator who is in none."""

    view_action = Action.USAGE_READ
    side = "any"

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export_view)
        return [*super().get_urls(), path("export/", export, name="tenants_usagebucket_export")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = context_of(request)
        with usage_scope(context):
            frame = usage_frame(context)
            form = self._form(request, frame)
            page = {
                **self.admin_site.each_context(request),
                "title": _("Usage"),
                "form": form,
                "frame": frame,
                "all_tenants": crosses_tenants(context),
            }
            if not form.is_valid():
                return TemplateResponse(request, "site/usage.html", page, status=400)
            page |= self._figures(request, form.query, frame)
        return TemplateResponse(request, "site/usage.html", page)

    def _figures(
        self, request: HttpRequest, query: UsageQuery, frame: UsageFrame
    ) -> dict[str, Any]:
        context = context_of(request)
        before = request.GET.get("before") or None
        found = UsageReader(context, query, frame.time_zone).page(
            limit=self.list_per_page, before=before
        )
        asked = request.GET.copy()
        asked.pop("before", None)
        shown = {
            "groups": set(query.group_by),
            "rows": [(row, _units(row)) for row in found.rows],
            "export": f"{self.url('export')}?{asked.urlencode()}",
            "first_page": (asked.urlencode() or "first") if before else "",
        }
        if found.following:
            asked["before"] = found.following
            shown["next_page"] = asked.urlencode()
        return shown

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """The same usage as CSV."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = context_of(request)
        with usage_scope(context):
            form = self._form(request, usage_frame(context))
            if not form.is_valid():
                raise Invalid("The days or the split can't be understood.")
            file = services.export_usage(context=context, query=form.query)
        name = f"usage-{form.query.first}-{form.query.last}.csv"
        return Download(file, name=name, content_type="text/csv; charset=utf-8")

    @staticmethod
    def _form(request: HttpRequest, frame: UsageFrame) -> UsageForm:
        days = month_to_date(frame.time_zone, timezone.now())
        shown = {"first": days[0].isoformat(), "last": days[1].isoformat(), "split": "day"}
        shown |= {n: v for n in shown if (v := request.GET.get(n))}
        return UsageForm(request, data=shown)


def _units(row: UsageRow) -> str:
    """A cost in its currency, exact to the nano-unit."""
    whole, nanos = divmod(row.cost, NANOS)
    decimals = f"{nanos:09d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals} {row.currency}"
