"""Admin pages of what serves jobs: models, deployments, workers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.admin.words import about, money
from inference.models import Deployment, JobState, Model, ModelPrice, ModelVersion, Task, Worker
from inference.quality_services import measured, set_quality_gate
from inference.selectors import drain_seconds
from inference.services import set_deployment_enabled
from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Side,
    context_of,
    display,
)
from portal.core.tenancy import platform_scope
from tenants.admin.keys import on_example_model
from tenants.permissions import Action, allowed

WORKER_STATE_KINDS = {
    "loading": "info",
    "ready": "success",
    "draining": "warning",
    "stopped": "default",
    "failed": "danger",
}
SILENT_AFTER = timedelta(seconds=15)
"""A worker that has not been heard of for this long counts as gone."""


def price_text(price: ModelPrice | None) -> str:
    """A price a million tokens in words; empty where there is none."""
    if price is None:
        return ""
    return gettext("%(prompt)s for prompts, %(completion)s for answers") % {
        "prompt": money(price.prompt_micros_per_million * 1000, price.currency),
        "completion": money(price.completion_micros_per_million * 1000, price.currency),
    }


def served_model() -> str:
    """Name of a model that is served, for examples; empty where there is none."""
    generating = Model.objects.filter(task=Task.GENERATE)
    served = generating.filter(deployments__enabled=True).order_by("name")
    return served.values_list("name", flat=True).first() or ""


on_example_model(served_model)


class _PlatformPage(PortalModelAdmin):
    """A page of the catalogue: it belongs to the platform and holds no tenant's rows."""

    side: ClassVar[Side] = "platform"


def _set_enabled(request: HttpRequest, deployment: Deployment, *, enabled: bool) -> str:
    set_deployment_enabled(
        context=context_of(request), deployment_id=deployment.pk, enabled=enabled
    )
    return reverse("admin:inference_deployment_change", args=[deployment.pk])


@dataclass(frozen=True, slots=True)
class Health:
    """How a deployment is, in words; ``kind`` is the colour of its label."""

    kind: str
    text: str
    detail: str = ""


def health_of(deployment: Deployment, workers: Sequence[Worker], now: datetime) -> Health:
    """What a deployment's workers say together."""
    live = [w for w in workers if now - w.heartbeat_at < SILENT_AFTER and w.state != "stopped"]
    if not deployment.enabled:
        return Health("default", gettext("Disabled"))
    if any(w.state == "ready" for w in live):
        return Health("success", gettext("Ready"))
    failed = next((w for w in live if w.state == "failed"), None)
    if failed is not None:
        return Health("danger", gettext("The worker failed"), failed.detail)
    if any(w.state == "loading" for w in live):
        return Health("info", gettext("A worker is loading the model"))
    if any(w.state == "draining" for w in live):
        return Health("warning", gettext("The only worker is stopping"))
    silent = max(workers, key=lambda w: w.heartbeat_at, default=None)
    if silent is None:
        return Health(
            "danger",
            gettext("No worker"),
            gettext("Start a worker with WORKER_DEPLOYMENT=%(name)s.") % {"name": deployment.name},
        )
    return Health(
        "danger",
        gettext("No worker"),
        gettext("%(worker)s was last heard of %(time)s. %(detail)s")
        % {
            "worker": silent.name,
            "time": formats.date_format(
                timezone.localtime(silent.heartbeat_at), "SHORT_DATETIME_FORMAT"
            ),
            "detail": silent.detail,
        },
    )


@admin.register(Deployment)
class DeploymentAdmin(_PlatformPage):
    """What is served, by which engine and on which queue."""

    view_action = Action.DEPLOYMENT_READ
    pages = (
        FormPage(
            "enable",
            Action.DEPLOYMENT_EDIT,
            _("Enable"),
            ServiceForm,
            lambda request, deployment, _data: _set_enabled(request, deployment, enabled=True),
            button=_("Enable deployment"),
            intro=_("Calls of its model are admitted to this deployment from now on."),
            done=_("The deployment is enabled."),
            offered=lambda deployment: not deployment.enabled,
        ),
        FormPage(
            "disable",
            Action.DEPLOYMENT_EDIT,
            _("Disable"),
            ServiceForm,
            lambda request, deployment, _data: _set_enabled(request, deployment, enabled=False),
            button=_("Disable deployment"),
            intro=_("It gets no new calls; jobs under way are finished."),
            done=_("The deployment is disabled."),
            danger=True,
            offered=lambda deployment: deployment.enabled,
        ),
    )
    detail_template = "site/deployment.html"
    empty_title = _("No deployment yet")
    empty_text = _("A deployment serves one version of a model on one queue of workers.")
    list_display = ("name", "model_name", "engine", "health", "waiting", "enabled")
    list_filter = ("enabled", "engine")
    search_fields = ("name", "model__name")
    ordering = ("name",)

    def scope(self, request: HttpRequest) -> AbstractContextManager[None]:
        # Queue lengths count every tenant's jobs.
        context = replace(context_of(request), tenant_id=None)
        return platform_scope(context, reason="deployments are listed")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return (
            Deployment.objects.select_related("model", "version")
            .prefetch_related("workers")
            .annotate(
                queued=Count("jobs", filter=Q(jobs__state=JobState.QUEUED)),
            )
        )

    @display(description=_("Model"), ordering="model__name")
    def model_name(self, deployment: Deployment) -> str:
        return deployment.model.name

    @display(description=_("Health"), label=STATUS_KINDS)
    def health(self, deployment: Deployment) -> tuple[str, str]:
        found = health_of(deployment, list(deployment.workers.all()), timezone.now())
        return found.kind, found.text

    @display(description=_("Waiting"), ordering="queued")
    def waiting(self, deployment: Any) -> int:
        return int(deployment.queued)

    def detail_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        workers = list(obj.workers.all())
        drain = drain_seconds(obj.pk)
        return {
            "health": health_of(obj, workers, timezone.now()),
            "workers": [(w, WORKER_STATE_KINDS[w.state]) for w in workers],
            "facts": [
                (_("Model"), obj.model.name),
                (_("Version"), obj.version.label),
                (_("Engine"), obj.engine),
                (_("Queue"), obj.queue),
                (_("Jobs waiting"), str(obj.queued)),
                *([] if drain is None else [(_("Worked off in"), about(drain))]),
                (_("Context length"), obj.context_length),
                (_("Default max_tokens"), obj.default_max_tokens),
                (_("Created"), obj.created_at),
            ],
        }


@admin.register(Worker)
class WorkerAdmin(_PlatformPage):
    """The processes that hold models."""

    view_action = Action.DEPLOYMENT_READ
    detail_template = "site/detail.html"
    empty_title = _("No worker yet")
    empty_text = _("A worker shows up here as soon as it is started.")
    list_display = (
        "name",
        "deployment_name",
        "state_label",
        "engine",
        "running",
        "slots",
        "heartbeat_at",
    )
    list_filter = ("state",)
    list_select_related = ("deployment",)
    search_fields = ("name",)
    ordering = ("name",)

    @display(description=_("Deployment"), ordering="deployment__name")
    def deployment_name(self, worker: Worker) -> str:
        return worker.deployment.name

    @display(description=_("State"), ordering="state", label=STATUS_KINDS)
    def state_label(self, worker: Worker) -> tuple[str, str]:
        if worker.state != "stopped" and timezone.now() - worker.heartbeat_at >= SILENT_AFTER:
            return "danger", gettext("Not heard of")
        return WORKER_STATE_KINDS[worker.state], str(worker.get_state_display())

    def detail_context(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        return {
            "facts": [
                (_("Deployment"), obj.deployment.name),
                (_("State"), self.state_label(obj)[1]),
                (_("Detail"), obj.detail),
                (_("Engine"), obj.engine),
                (_("Running"), str(obj.running)),
                (_("Slots"), str(obj.slots)),
                (_("Tokens a second"), "" if obj.pace is None else f"{obj.pace:,.0f}"),
                (_("Started"), obj.started_at),
                (_("Heartbeat"), obj.heartbeat_at),
                (_("Digest of the version"), obj.version_digest),
            ]
        }


def _artefact(version: ModelVersion) -> dict[str, Any]:
    files = sorted((version.files or {}).items())
    return {
        "label": version.label,
        "facts": [
            (_("Format"), version.format),
            (_("Architecture"), version.architecture),
            (_("Licence"), version.licence),
            (_("Provenance"), version.provenance),
            (_("Folder"), version.path),
            (_("Digest"), version.digest),
            (_("Size"), filesizeformat(sum(entry["size"] for _name, entry in files))),
        ],
        "files": [(name, filesizeformat(entry["size"]), entry["sha256"]) for name, entry in files],
    }


class GateForm(ServiceForm):
    """What quantized versions must be worth."""

    least_agreement = forms.FloatField(
        label=_("Least agreement"),
        min_value=0,
        max_value=1,
        help_text=_(
            "Share of places, 0 to 1, where a quantized version must choose the unquantized "
            "model's token."
        ),
        widget=forms.NumberInput(attrs={**INPUT, "step": "any"}),
    )
    most_size = forms.FloatField(
        label=_("Largest size"),
        min_value=0,
        max_value=1,
        help_text=_("Of a quantized version's weights, over their size in fp32."),
        widget=forms.NumberInput(attrs={**INPUT, "step": "any"}),
    )


def _set_gate(request: HttpRequest, model: Model, data: dict[str, Any]) -> str:
    set_quality_gate(context=context_of(request), model_id=model.pk, **data)
    return reverse("admin:inference_model_change", args=[model.pk])


def quality_text(version: ModelVersion) -> str:
    """A version's quality in words; empty where its weights are not quantized here."""
    found = measured(version)
    if found is None:
        return "" if version.quality is None else gettext("Not measured")
    return gettext(
        "%(agreement)s of tokens as unquantized, %(size)s of the size in fp32, perplexity "
        "%(change)s (%(tokens)d tokens of text %(text)s)"
    ) % {
        "agreement": f"{found.top1_agreement:.2%}",
        "size": f"{found.size_ratio:.3f}",
        "change": f"{found.perplexity_change:+.2%}",
        "tokens": found.tokens,
        "text": found.text_sha256[:8],
    }


@admin.register(Model)
class ModelPages(_PlatformPage):
    """The catalogue of models."""

    view_action = Action.MODEL_READ
    side = "any"
    pages = (
        FormPage(
            "quality-gate",
            Action.MODEL_EDIT,
            _("Quality gate"),
            GateForm,
            _set_gate,
            button=_("Save"),
            intro=_("A quantized version that is worth less is neither deployed nor enabled."),
            done=_("The quality gate is set."),
        ),
    )
    detail_template = "site/model.html"
    empty_title = _("No model yet")
    empty_text = _("Models are imported with the command manage.py model import.")
    list_display = ("name", "title", "task", "served", "created_at")
    list_filter = ("task",)
    search_fields = ("name", "title")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return Model.objects.annotate(
            serving=Count("deployments", filter=Q(deployments__enabled=True))
        )

    @display(description=_("Served"), boolean=True)
    def served(self, model: Any) -> bool:
        return bool(model.serving)

    def detail_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        now = timezone.now()
        versions = []
        for version in ModelVersion.objects.filter(model=obj).prefetch_related("prices"):
            prices = [p for p in version.prices.all() if p.effective_from <= now]
            price = max(prices, key=lambda p: p.effective_from, default=None)
            versions.append((version, price_text(price), quality_text(version)))
        by_platform = allowed(context_of(request), Action.DEPLOYMENT_READ)
        return {
            "facts": [
                (_("Title"), obj.title),
                (_("Description"), obj.description),
                (_("Task"), obj.get_task_display()),
                (_("Served"), _("Yes") if obj.serving else _("No")),
                (_("Least agreement"), f"{obj.least_agreement:.2%}"),
                (_("Largest size"), f"{obj.most_size:.3f}"),
            ],
            "versions": versions,
            # Where they came from and where they lie is the platform's own business.
            "artefacts": [_artefact(version) for version, _price, _quality in versions]
            if by_platform
            else [],
        }
