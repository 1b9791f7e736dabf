"""Admin pages of what serves jobs: deployments and workers."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.admin.catalogue_forms import (
    DeploymentForm,
    NewDeploymentForm,
)
from inference.admin.live import ORDER_TITLES, live_context, progress_of, stale_text, state_of
from inference.admin.orders import all_worker_pages, worker_pages
from inference.admin.platform import PlatformPage, deployment_link
from inference.models import Deployment, Worker
from inference.selectors import forecast_length
from inference.services import (
    create_deployment,
    delete_deployment,
    edit_deployment,
    set_deployment_enabled,
)
from inference.worker_selectors import is_silent, load_of, loaded_deployments, workers
from inference.worker_services import WorkerOrder, refusal_of
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    ServiceForm,
    context_of,
    display,
    in_words,
)
from portal.core.tenancy import platform_scope
from tenants.permissions import Action


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
    live = [w for w in workers if not is_silent(w, now) and w.state != "stopped"]
    if not deployment.enabled:
        return Health("default", gettext("Disabled"))
    if any(w.state == "ready" for w in live):
        return Health("success", gettext("Ready"))
    failed = next((w for w in live if w.state == "failed"), None)
    if failed is not None:
        return Health("danger", gettext("The worker failed"), in_words(failed.detail))
    if any(w.state == "loading" for w in live):
        return Health("info", gettext("A worker is loading the model"))
    if any(w.state == "draining" for w in live):
        return Health("warning", gettext("No worker takes work: the last one drains"))
    if any(w.state == "drained" for w in live):
        return Health(
            "warning",
            gettext("Drained"),
            gettext("No worker takes work until one is resumed. Jobs wait until their deadline."),
        )
    if live:
        return Health(
            "warning",
            gettext("Unloaded"),
            gettext("No worker holds the model. Jobs wait until their deadline."),
        )
    silent = max(workers, key=lambda w: w.heartbeat_at, default=None)
    if silent is None:
        return Health(
            "danger",
            gettext("No worker"),
            gettext("Start one with the command on the deployment's page."),
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


def _create_deployment(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    data["version_id"] = UUID(data["version_id"])
    return deployment_link(create_deployment(context=context_of(request), **data).pk)


def _edit_deployment(request: HttpRequest, deployment: Deployment, data: dict[str, Any]) -> str:
    data["version_id"] = UUID(data["version_id"])
    return deployment_link(
        edit_deployment(context=context_of(request), deployment_id=deployment.pk, **data).pk
    )


def _delete_deployment(request: HttpRequest, deployment: Deployment, _data: dict[str, Any]) -> str:
    delete_deployment(context=context_of(request), deployment_id=deployment.pk)
    return reverse("admin:inference_deployment_changelist")


@admin.register(Deployment)
class DeploymentAdmin(PlatformPage):
    """What is served, by which engine and on which queue."""

    view_action = Action.DEPLOYMENT_READ
    add_page = FormPage(
        "add",
        Action.DEPLOYMENT_EDIT,
        _("New deployment"),
        NewDeploymentForm,
        _create_deployment,
        button=_("Create deployment"),
        intro=_("A deployment serves one version of a model on one queue of workers."),
        done=_("The deployment is made; start a worker for it."),
    )
    pages = (
        FormPage(
            "edit",
            Action.DEPLOYMENT_EDIT,
            _("Edit"),
            DeploymentForm,
            _edit_deployment,
            button=_("Save"),
            intro=_(
                "A worker that holds the model goes on with what it loaded until it is told to "
                "load again."
            ),
            done=_("Saved. Load the workers again where they show “stale”."),
        ),
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
        FormPage(
            "delete",
            Action.DEPLOYMENT_EDIT,
            _("Delete"),
            ServiceForm,
            _delete_deployment,
            button=_("Delete deployment"),
            intro=_("Only a deployment that has never served a job can be deleted."),
            done=_("The deployment is deleted."),
            danger=True,
        ),
        *all_worker_pages(),
    )
    detail_template = "site/deployment.html"
    empty_title = _("No deployment yet")
    empty_text = _("A deployment serves one version of a model on one queue of workers.")
    list_display = (
        "name",
        "model_name",
        "version_label",
        "engine",
        "health",
        "waiting",
        "replicas",
        "speed",
        "memory",
        "enabled",
    )
    list_filter = ("enabled", "engine")
    search_fields = ("name", "model__name")
    ordering = ("name",)

    def scope(self, request: HttpRequest) -> AbstractContextManager[None]:
        # Queue lengths count every tenant's jobs.
        context = replace(context_of(request), tenant_id=None)
        return platform_scope(context, reason="deployments are listed")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.live_view)
        live = path("<uuid:object_id>/live/", view, name="inference_deployment_live")
        return [*super().get_urls(), live]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return loaded_deployments()

    @display(description=_("Model"), ordering="model__name")
    def model_name(self, deployment: Deployment) -> str:
        return deployment.model.name

    @display(description=_("Version"))
    def version_label(self, deployment: Deployment) -> str:
        return deployment.version.label

    @display(description=_("Health"), label=STATUS_KINDS)
    def health(self, deployment: Deployment) -> tuple[str, str]:
        found = health_of(deployment, list(deployment.workers.all()), timezone.now())
        return found.kind, found.text

    @display(description=_("Waiting"), ordering="queued")
    def waiting(self, deployment: Any) -> int:
        return int(deployment.queued)

    @display(description=_("Ready workers"))
    def replicas(self, deployment: Deployment) -> str:
        load = load_of(deployment, 0, list(deployment.workers.all()))
        return f"{load.ready} / {load.workers}"

    @display(description=_("Tokens a second"))
    def speed(self, deployment: Deployment) -> str:
        return f"{load_of(deployment, 0, list(deployment.workers.all())).tokens_per_second:,.1f}"

    @display(description=_("Memory"))
    def memory(self, deployment: Deployment) -> str:
        return filesizeformat(load_of(deployment, 0, list(deployment.workers.all())).memory_bytes)

    def detail_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        orders = {self.url(order, obj): title for order, title in ORDER_TITLES.items()}
        buttons = [
            {"title": page.title, "link": self.url(page.name, obj), "danger": page.danger}
            for page in self.pages
            if self.allows(request, page, obj) and page.offered(obj)
        ]
        return {
            "buttons": [b for b in buttons if b["link"] not in orders],
            "orders": [b for b in buttons if b["link"] in orders],
            "live": self.url("live", obj),
            **self._live_context(request, obj, obj.queued),
            "facts": [
                (_("Model"), obj.model.name),
                (_("Version"), obj.version.label),
                (_("Digest"), obj.version.digest[:16]),
                (_("Engine"), obj.engine),
                (_("Engine options"), json.dumps(obj.options) if obj.options else ""),
                (_("Queue"), obj.queue),
                (_("Context length"), obj.context_length),
                (_("Default max_tokens"), obj.default_max_tokens),
                (_("Created"), obj.created_at),
            ],
        }

    def live_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """The live part alone, asked for every other second while the page is looked at.

        It stays out of the platform's scope, each of which is an event of the trail: how many
        jobs wait is taken from the forecast.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = Deployment.objects.select_related("model", "version").prefetch_related("workers")
        deployment = found.filter(pk=object_id).first()
        if deployment is None:
            raise Http404
        queued = forecast_length(deployment.pk) if deployment.enabled else None
        context = self._live_context(request, deployment, queued)
        return render(request, "site/deployment_live.html", context)

    def _live_context(
        self, request: HttpRequest, deployment: Deployment, queued: int | None
    ) -> dict[str, Any]:
        health = health_of(deployment, list(deployment.workers.all()), timezone.now())
        return {"health": health, **live_context(request, deployment, queued)}


@admin.register(Worker)
class WorkerAdmin(PlatformPage):
    """The processes that hold models."""

    view_action = Action.DEPLOYMENT_READ
    pages = worker_pages()
    detail_template = "site/worker.html"
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        return workers()

    @display(description=_("Deployment"), ordering="deployment__name")
    def deployment_name(self, worker: Worker) -> str:
        return worker.deployment.name

    @display(description=_("State"), ordering="state", label=STATUS_KINDS)
    def state_label(self, worker: Worker) -> tuple[str, str]:
        return state_of(worker, timezone.now())

    def detail_context(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        now = timezone.now()
        return {
            "buttons": [
                {"title": page.title, "link": self.url(page.name, obj), "danger": page.danger}
                for page in self.pages
                if self.allows(request, page, obj) and not refusal_of(obj, WorkerOrder(page.name))
            ],
            "deployment_link": deployment_link(obj.deployment_id),
            "facts": [
                (_("State"), state_of(obj, now)[1]),
                (_("Since"), obj.state_since),
                (_("Detail"), progress_of(obj, now)),
                (_("Desired state"), obj.get_desired_state_display()),
                (_("Stale"), stale_text(obj)),
                (_("Engine"), obj.engine),
                (_("Running"), f"{obj.running} / {obj.slots}"),
                (_("Waiting in the engine"), str(obj.waiting)),
                (_("Tokens a second"), _number(obj.tokens_per_second)),
                (_("Reserved tokens a second when full"), _number(obj.pace)),
                (_("Memory"), filesizeformat(obj.resident_bytes)),
                (
                    _("Memory of the engine's device"),
                    filesizeformat(obj.memory_bytes) if obj.memory_bytes else "",
                ),
                (
                    _("Cache"),
                    f"{obj.cached_tokens} / {obj.cache_tokens}" if obj.cache_tokens else "",
                ),
                (_("Started"), obj.started_at),
                (_("Heartbeat"), obj.heartbeat_at),
                (_("Digest of the version"), obj.version_digest),
            ],
        }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
