"""Admin pages of routes: names that callers use, and the deployments behind them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.forms.renderers import BaseRenderer
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from inference.admin.catalogue import Health, health_of
from inference.models import Deployment, Route, RouteOverride, RouteTarget
from inference.models.routes import MOST_TIER, MOST_WEIGHT, route_name
from inference.route_services import (
    NewTarget,
    create_route,
    delete_route,
    delete_route_override,
    edit_route,
    set_route_override,
)
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
from tenants.models import Tenant
from tenants.permissions import Action

_MOST_LISTED = 500


@dataclass(frozen=True, slots=True)
class TargetRow:
    """A deployment in the table of a route's form; an empty weight leaves it out."""

    deployment: Deployment
    health: Health
    weight: str
    tier: str


class TargetsWidget(forms.Widget):
    """A row for each deployment, with two numbers to type: from field to field by Tab."""

    template_name = "site/route_targets.html"
    use_fieldset = True

    def __init__(self) -> None:
        super().__init__()
        self.deployments: Sequence[Deployment] = ()

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        now = timezone.now()
        given: Mapping[str, tuple[str, str]] = value or {}
        rows = []
        for deployment in self.deployments:
            weight, tier = given.get(str(deployment.pk), ("", "0"))
            health = health_of(deployment, list(deployment.workers.all()), now)
            rows.append(TargetRow(deployment, health, weight, tier))
        limits = {"most_weight": MOST_WEIGHT, "most_tier": MOST_TIER}
        return {**super().get_context(name, value, attrs), "rows": rows, **limits}

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        # Django's own renderer of widgets does not know the site's templates.
        return render_to_string(self.template_name, self.get_context(name, value, attrs))

    def value_from_datadict(
        self, data: Mapping[str, Any], files: Any, name: str
    ) -> dict[str, tuple[str, str]]:
        """What was typed, by deployment: weight and tier as text."""
        found = {}
        for deployment in self.deployments:
            weight = str(data.get(f"{name}-{deployment.pk}-weight", "")).strip()
            tier = str(data.get(f"{name}-{deployment.pk}-tier", "")).strip()
            found[str(deployment.pk)] = (weight, tier)
        return found

    def id_for_label(self, id_: str) -> str:
        return ""


class TargetsField(forms.Field):
    """The targets of a route, as the service takes them."""

    widget = TargetsWidget

    def clean(self, value: Mapping[str, tuple[str, str]]) -> list[NewTarget]:
        targets = [
            NewTarget(UUID(deployment_id), _number(weight), _number(tier or "0"))
            for deployment_id, (weight, tier) in value.items()
            if weight
        ]
        if not targets:
            raise forms.ValidationError(_("Give at least one deployment a weight."))
        return targets


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise forms.ValidationError(_("Weights and tiers are whole numbers."))
    return int(text)


class RouteForm(ServiceForm):
    """What a route is; its targets in one table."""

    description = forms.CharField(
        label=_("Description"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={**INPUT, "rows": 2}),
    )
    targets = TargetsField(
        label=_("Targets"),
        help_text=_(
            "Within a tier, weights say how calls are shared. Tier 0 is tried first; later tiers "
            "take over when it fails. A deployment without a weight is no target."
        ),
    )
    reserved = forms.BooleanField(
        label=_("Reserved"),
        required=False,
        help_text=_("Only tenants to which it is assigned can call it."),
    )
    enabled = forms.BooleanField(
        label=_("Enabled"),
        required=False,
        initial=True,
        help_text=_("Takes effect within seconds."),
    )

    def __init__(self, request: HttpRequest, subject: Route | None = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        widget = self.fields["targets"].widget
        assert isinstance(widget, TargetsWidget)
        found = Deployment.objects.select_related("model").prefetch_related("workers")
        # All of them: what the table leaves out would be taken from the route.
        widget.deployments = list(found.order_by("name"))

    def initial_of(self, subject: Route) -> Mapping[str, Any]:
        targets = {
            str(t.deployment_id): (str(t.weight), str(t.tier)) for t in subject.targets.all()
        }
        return {**super().initial_of(subject), "targets": targets}


class NewRouteForm(RouteForm):
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        validators=[route_name],
        help_text=_(
            "What callers put into “model”; it can't be changed later. A route wins over a model "
            "of its name."
        ),
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    field_order = ("name",)


class _TenantInput(forms.TextInput):
    """A tenant's short name: typed, or picked from the first so many."""

    def render(
        self,
        name: str,
        value: Any,
        attrs: dict[str, Any] | None = None,
        renderer: BaseRenderer | None = None,
    ) -> SafeString:
        attrs = {**(attrs or {}), "list": "tenants", "autocomplete": "off"}
        known = Tenant.objects.order_by("name").values_list("slug", "name")[:_MOST_LISTED]
        options = format_html_join("", '<option value="{}">{}</option>', known)
        field = super().render(name, value, attrs, renderer)
        return format_html('{}<datalist id="tenants">{}</datalist>', field, options)


class AssignForm(ServiceForm):
    """A tenant, and the name under which it gets the route."""

    tenant = forms.SlugField(
        label=_("Tenant"),
        help_text=_("The tenant's short name."),
        widget=_TenantInput(attrs=INPUT),
    )
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        validators=[route_name],
        help_text=_("What this tenant's callers put into “model” to get this route."),
        widget=forms.TextInput(attrs=INPUT),
    )

    def clean_tenant(self) -> UUID:
        """The id of the tenant of that short name."""
        found = Tenant.objects.filter(slug=self.cleaned_data["tenant"]).first()
        if found is None:
            raise forms.ValidationError(_("There is no such tenant."))
        return found.pk


class WithdrawForm(ServiceForm):
    """One of the tenants that have the route."""

    override = forms.ChoiceField(label=_("Tenant"), widget=forms.Select(attrs=INPUT))

    def __init__(self, request: HttpRequest, subject: Route, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        field = self.fields["override"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(str(o.pk), f"{o.tenant.name}: {o.name}") for o in _overrides(subject)]


def _overrides(route: Route) -> QuerySet[RouteOverride]:
    return route.overrides.select_related("tenant").order_by("tenant__name", "name")


def _detail(route: Route) -> str:
    return reverse("admin:inference_route_change", args=[route.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    return _detail(create_route(context=context_of(request), **data))


def _edit(request: HttpRequest, route: Route, data: dict[str, Any]) -> str:
    return _detail(edit_route(context=context_of(request), route_id=route.pk, **data))


def _assign(request: HttpRequest, route: Route, data: dict[str, Any]) -> str:
    set_route_override(
        context=context_of(request),
        tenant_id=data["tenant"],
        name=data["name"],
        route_id=route.pk,
    )
    return _detail(route)


def _withdraw(request: HttpRequest, route: Route, data: dict[str, Any]) -> str:
    delete_route_override(context=context_of(request), override_id=UUID(data["override"]))
    return _detail(route)


def _delete(request: HttpRequest, route: Route, data: dict[str, Any]) -> str:
    delete_route(context=context_of(request), route_id=route.pk)
    return reverse("admin:inference_route_changelist")


@admin.register(Route)
class RouteAdmin(PortalModelAdmin):
    """Names that lead to deployments."""

    view_action = Action.ROUTE_READ
    side = "platform"
    add_page = FormPage(
        "add",
        Action.ROUTE_EDIT,
        _("New route"),
        NewRouteForm,
        _create,
        button=_("Create route"),
        done=_("The route is made; callers can use it within seconds."),
    )
    pages = (
        FormPage(
            "edit",
            Action.ROUTE_EDIT,
            _("Edit"),
            RouteForm,
            _edit,
            button=_("Save"),
            intro=_("Calls under way go on where they are."),
            done=_("Saved."),
        ),
        FormPage(
            "assign",
            Action.ROUTE_EDIT,
            _("Assign to a tenant"),
            AssignForm,
            _assign,
            button=_("Assign"),
            intro=_("Under this name the tenant gets this route, whatever others get under it."),
            done=_("The tenant has this route within seconds."),
        ),
        FormPage(
            "withdraw",
            Action.ROUTE_EDIT,
            _("Withdraw from a tenant"),
            WithdrawForm,
            _withdraw,
            button=_("Withdraw"),
            intro=_("The name means to this tenant what it means to everyone again."),
            done=_("The tenant no longer has a route of its own under this name."),
            danger=True,
            offered=lambda route: route.overrides.exists(),
        ),
        FormPage(
            "delete",
            Action.ROUTE_EDIT,
            _("Delete"),
            ServiceForm,
            _delete,
            button=_("Delete route"),
            intro=_(
                "Calls by this name are refused from then on, unless a model has it. "
                "Deployments and their jobs are not touched."
            ),
            done=_("The route is deleted."),
            danger=True,
        ),
    )
    detail_template = "site/route.html"
    empty_title = _("No route yet")
    empty_text = _("Without a route, each model is called by its own name.")
    list_text = _(
        "A route is a name that callers put into “model”, and the deployments that serve it."
    )
    list_display = ("name", "leads_to", "health", "open_to", "enabled")
    list_filter = ("enabled", "reserved")
    search_fields = ("name", "description")
    ordering = ("name",)

    def scope(self, request: HttpRequest) -> AbstractContextManager[None]:
        # The tenants that have a route of their own are listed with it.
        context = replace(context_of(request), tenant_id=None)
        return platform_scope(context, reason="routes are listed")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Route]:
        return Route.objects.prefetch_related(
            "targets__deployment__model", "targets__deployment__workers", "overrides"
        )

    @display(description=_("Leads to"))
    def leads_to(self, route: Route) -> str:
        """Its targets with their shares; an arrow before each later tier."""
        tiers: dict[int, list[str]] = {}
        for target, share in _shares(route):
            tiers.setdefault(target.tier, []).append(f"{target.deployment.name} {share} %")
        return " → ".join(", ".join(tiers[tier]) for tier in sorted(tiers))

    @display(description=_("Health"), label=STATUS_KINDS)
    def health(self, route: Route) -> tuple[str, str]:
        return _health(route)

    @display(description=_("Open to"))
    def open_to(self, route: Route) -> str:
        tenants = len(route.overrides.all())
        assigned = ngettext("%(n)s assignment", "%(n)s assignments", tenants) % {"n": tenants}
        if route.reserved:
            return assigned
        everyone = gettext("Everyone")
        return f"{everyone}, {assigned}" if tenants else everyone

    def detail_context(self, request: HttpRequest, obj: Route) -> dict[str, Any]:
        now = timezone.now()
        kind, text = _health(obj)
        targets = [
            (
                target,
                share,
                health_of(target.deployment, list(target.deployment.workers.all()), now),
            )
            for target, share in _shares(obj)
        ]
        return {
            "health": Health(kind, text),
            "targets": targets,
            "overrides": list(_overrides(obj)),
            "facts": [
                (_("Description"), obj.description),
                (_("Enabled"), _("Yes") if obj.enabled else _("No")),
                (_("Reserved"), _("Yes") if obj.reserved else _("No")),
                (_("Created"), obj.created_at),
            ],
        }


def _shares(route: Route) -> list[tuple[RouteTarget, int]]:
    """Its targets in order, each with its share of its tier in percent."""
    targets = sorted(route.targets.all(), key=lambda t: (t.tier, -t.weight, t.deployment.name))
    sums: dict[int, int] = {}
    for target in targets:
        sums[target.tier] = sums.get(target.tier, 0) + target.weight
    return [(t, round(100 * t.weight / sums[t.tier])) for t in targets]


def _health(route: Route) -> tuple[str, str]:
    """How a route's targets are together: the kind of label, and its text."""
    if not route.enabled:
        return "default", gettext("Disabled")
    now = timezone.now()
    deployments = [t.deployment for t in route.targets.all()]
    kinds = [health_of(d, list(d.workers.all()), now).kind for d in deployments]
    ready = kinds.count("success")
    if ready == len(kinds):
        return "success", gettext("Ready")
    counts = {"ready": ready, "all": len(kinds)}
    if ready:
        return "warning", gettext("%(ready)s of %(all)s ready") % counts
    return "danger", gettext("No target is ready")
