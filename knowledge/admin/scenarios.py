"""The page of scenarios and how well each did over time, and the page of one evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from inference.models import Task
from knowledge.admin.base_forms import EmptyForm
from knowledge.applications.selectors import newest_spec, searched_bases
from knowledge.models import App, Evaluation, Trigger
from knowledge.scenarios.catalogue import Scenario, scenarios
from knowledge.scenarios.selectors import evaluations
from knowledge.scenarios.services import install_scenario
from knowledge.selectors import served_models
from portal.core.pages import INPUT, FormPage, PortalModelAdmin, Text, context_of
from tenants.models import Tenant
from tenants.permissions import Action
from tenants.services.checks import require_tenant

_SHOWN: Final = 20
"""Of each scenario's evaluations, the newest."""
_WIDTH, _HEIGHT = 600, 120

# What the catalogue says of those that are shipped.
gettext_noop("Financial risk")
gettext_noop("Manufacturing")
gettext_noop("Medical records")
gettext_noop(
    "Payments come in as events; rules find what is unusual, and the model writes a risk report."
)
gettext_noop(
    "Logs of devices come in as events; trends warn before a failure, and the model names the "
    "fault and what to do."
)
gettext_noop(
    "A record in words becomes JSON by a schema, with conditions that a physician may want to "
    "think of."
)


class InstallForm(EmptyForm):
    """Which scenario is installed, and what its app asks."""

    slug = forms.ChoiceField(label=_("Scenario"), widget=forms.Select(attrs=INPUT))
    model = forms.ChoiceField(
        label=_("Model"),
        help_text=_("What the app asks. It can be changed later, as everything of the app."),
        widget=forms.Select(attrs=INPUT),
    )

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        self.fields["slug"].choices = [  # type: ignore[attr-defined]
            (slug, gettext(scenario.name)) for slug, scenario in scenarios().items()
        ]
        self.fields["slug"].initial = request.GET.get("slug")
        self.fields["model"].choices = [  # type: ignore[attr-defined]
            (name, name) for name in served_models(Task.GENERATE)
        ]


def _install(request: HttpRequest, _subject: None, data: dict[str, Any]) -> str:
    made = install_scenario(context=context_of(request), **data)
    return reverse("admin:knowledge_app_change", args=[made.app.pk])


@dataclass(frozen=True, slots=True)
class Chart:
    """Shares over time as points of lines, oldest first.

    Attributes:
        right, rules: points of an SVG's ``polyline``; empty of nothing.
        marks: x, y and what is said of each evaluation.
    """

    right: str
    rules: str
    marks: Sequence[tuple[float, float, str]]

    @classmethod
    def of(cls, found: Sequence[Evaluation]) -> "Chart":
        """Of a scenario's evaluations, newest first."""
        step = _WIDTH / max(1, len(found) - 1)
        right, rules, marks = [], [], []
        for place, one in enumerate(reversed(found)):
            x = round(place * step, 1) if len(found) > 1 else _WIDTH / 2
            share = right_share(one.scores)
            y = round(_HEIGHT * (1 - share), 1)
            right.append(f"{x},{y}")
            marks.append((x, y, f"{one.created_at:%Y-%m-%d %H:%M}, {one.model}: {percent(share)}"))
            alone = rules_share(one.scores)
            if alone is not None:
                rules.append(f"{x},{round(_HEIGHT * (1 - alone), 1)}")
        return cls(" ".join(right), " ".join(rules), marks)


@admin.register(Evaluation)
class EvaluationAdmin(PortalModelAdmin):
    """Scenarios, what the active tenant has of them, and its evaluations."""

    view_action = Action.APP_READ
    detail_template = "site/evaluation.html"
    add_page = FormPage(
        "add",
        Action.APP_EDIT,
        _("Install scenario"),
        InstallForm,
        _install,
        button=_("Install"),
        intro=_("Its knowledge base, app and trigger are made here, and are yours to change."),
        done=_("The scenario is installed."),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Evaluation]:
        return evaluations().select_related("app")

    def page_context(self, request: HttpRequest, title: Text, obj: Any = None) -> dict[str, Any]:
        context = super().page_context(request, title, obj)
        context["crumbs"][0]["title"] = gettext("Scenarios")
        return context

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        installable = self.has_add_permission(request)
        apps = {app.slug: app for app in App.objects.filter(slug__in=scenarios())}
        triggers = {t.app_id: t for t in Trigger.objects.filter(app__in=apps.values())}
        page = {
            **self.admin_site.each_context(request),
            "title": gettext("Scenarios"),
            "tenant_slug": Tenant.objects.get(pk=require_tenant(context_of(request))).slug,
            "cards": [
                self._card(scenario, apps.get(slug), triggers, installable)
                for slug, scenario in scenarios().items()
            ],
            "width": _WIDTH,
            "height": _HEIGHT,
        }
        return TemplateResponse(request, "site/scenarios.html", page)

    def _card(
        self,
        scenario: Scenario,
        app: App | None,
        triggers: Mapping[Any, Trigger],
        installable: bool,
    ) -> dict[str, Any]:
        trigger = triggers.get(app.pk) if app is not None else None
        found = list(evaluations(scenario.slug)[:_SHOWN])
        return {
            "slug": scenario.slug,
            "name": gettext(scenario.name),
            "description": gettext(scenario.description),
            "cases": len(scenario.cases),
            "app": app and reverse("admin:knowledge_app_change", args=[app.pk]),
            "bases": [] if app is None else _bases(app),
            "trigger": trigger and reverse("admin:knowledge_trigger_change", args=[trigger.pk]),
            "install": f"{self.url('add')}?slug={scenario.slug}"
            if app is None and installable
            else None,
            "chart": Chart.of(found) if found else None,
            "rows": [
                {
                    "evaluation": one,
                    "link": self.url("change", one),
                    "valid": percent(one.scores.get("valid")),
                    "right": percent(right_share(one.scores)),
                    "rules": percent(rules_share(one.scores)),
                }
                for one in found
            ],
        }

    def detail_context(self, request: HttpRequest, obj: Evaluation) -> dict[str, Any]:
        scores = obj.scores
        return {
            "title": gettext(scenarios()[obj.scenario].name)
            if obj.scenario in scenarios()
            else obj.scenario,
            "facts": [
                (_("Time"), obj.created_at),
                (_("App"), f"{obj.app.name}, {gettext('version')} {obj.app_version}"),
                (_("Model"), obj.model),
                (_("Cases"), obj.cases),
                (_("Duration"), gettext("%(seconds)s seconds") % {"seconds": f"{obj.seconds:.0f}"}),
            ],
            "shares": [(label, percent(share)) for label, share in _shares(scores)],
            "classes": _classes(scores),
            "failures": [_failure(one) for one in obj.failures],
        }


def _bases(app: App) -> list[str]:
    """Links to the knowledge bases that the newest version of an app searches."""
    return [
        reverse("admin:knowledge_knowledgebase_change", args=[base.pk])
        for base in searched_bases(newest_spec(app))
    ]


def right_share(scores: Mapping[str, Any]) -> float:
    """The share of right verdicts, or of right fields where there is no verdict."""
    if "rules_and_model" in scores:
        return float(scores["rules_and_model"]["accuracy"])
    fields = scores.get("fields") or {"": 0.0}
    return float(sum(fields.values()) / len(fields))


def rules_share(scores: Mapping[str, Any]) -> float | None:
    """The share of right verdicts of the rules alone; None where there are none."""
    found = scores.get("rules_alone")
    return None if found is None else float(found["accuracy"])


def percent(share: float | None) -> str:
    return "—" if share is None else f"{share * 100:.0f} %"


def _shares(scores: Mapping[str, Any]) -> list[tuple[Text, float]]:
    named: list[tuple[Text, float | None]] = [
        (_("Answers that keep to the schema"), scores.get("valid")),
        (_("Answers of which every field is right"), scores.get("exact")),
    ]
    if "rules_and_model" in scores:
        named.append((_("Right verdicts of the app"), right_share(scores)))
    named.append((_("Right verdicts of the rules alone"), rules_share(scores)))
    named.append((_("Cases whose document was found"), scores.get("retrieval_recall")))
    fields = scores.get("fields", {}).items()
    return [
        *((label, share) for label, share in named if share is not None),
        *((gettext("Right: %(field)s") % {"field": field}, share) for field, share in fields),
    ]


def _classes(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    app = scores.get("rules_and_model", {}).get("classes", {})
    alone = scores.get("rules_alone", {}).get("classes", {})
    return [
        {
            "name": name,
            "shares": [
                percent(of.get(name, {}).get(share))
                for of in (app, alone)
                for share in ("precision", "recall")
            ],
        }
        for name in app
    ]


def _failure(one: Mapping[str, Any]) -> dict[str, Any]:
    answer = one["answer"]
    return {
        "case": one["case"],
        "kind": one["kind"],
        "said": answer is not None,
        "rules": one["rules"],
        "fields": [
            (field, one["expected"][field], (answer or {}).get(field)) for field in one["wrong"]
        ],
        "valid": one["valid"],
    }
