"""Admin pages of jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.paginator import InfinitePaginator

from audit.selectors import EventFilter, read_events
from inference.admin.words import about, duration_text, money
from inference.jobs.cancelling import cancel_job
from inference.jobs.results import result_expiry
from inference.models import Job, JobState
from inference.selectors import jobs, place_of
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Text,
    context_of,
    display,
    may,
)
from tenants.models import LedgerEntry
from tenants.permissions import Action

JOB_STATE_KINDS = {
    JobState.QUEUED: "info",
    JobState.RUNNING: "info",
    JobState.SUCCEEDED: "success",
    JobState.FAILED: "danger",
    JobState.CANCELLED: "warning",
    JobState.DEAD: "danger",
}
ERROR_TEXTS: dict[str, Text] = {
    "cancelled": _("It was cancelled, or its caller closed the connection."),
    "queue_timeout": _("It waited or ran for too long."),
    "interrupted": _("The worker was lost while it ran."),
    "stream_interrupted": _("The worker was lost after the first token, so it was not run again."),
    "request_refused": _("The engine refused the request."),
    "server_error": _("The engine failed."),
}
FINISH_TEXTS: dict[str, Text] = {
    "stop": _("The model had finished"),
    "length": _("The longest allowed answer was reached"),
    "cancelled": _("It was cancelled"),
    "error": _("An error ended it"),
}


KIND_TEXTS: dict[str, Text] = {
    "chat": _("Chat completion"),
    "embedding": _("Embedding"),
    "rerank": _("Ranking"),
    "job": _("Submitted job"),
    "batch": _("Request of a batch"),
}


class KindFilter(admin.SimpleListFilter):
    """How the job came in."""

    title = _("Kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(KIND_TEXTS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return queryset.filter(kind=self.value()) if self.value() in KIND_TEXTS else queryset


class AgeFilter(admin.SimpleListFilter):
    """How long ago something was admitted."""

    title = _("Time")
    parameter_name = "age"
    _spans = {
        "hour": timedelta(hours=1),
        "day": timedelta(days=1),
        "week": timedelta(days=7),
        "month": timedelta(days=31),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("hour", _("The last hour")),
            ("day", _("The last 24 hours")),
            ("week", _("The last 7 days")),
            ("month", _("The last 31 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        span = self._spans.get(self.value() or "")
        return queryset.filter(admitted_at__gte=timezone.now() - span) if span else queryset


@dataclass(frozen=True, slots=True)
class Step:
    """A point of a job's timeline; ``since`` tells how long the step before it took."""

    title: str
    at: datetime | None
    since: str

    @property
    def moment(self) -> str:
        """The time to the millisecond; empty if it has not come."""
        if self.at is None:
            return ""
        return self.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def timeline(job: Job) -> list[Step]:
    """Admitted, claimed, first token, finished, with the time between."""
    points = [
        (gettext("Admitted"), job.admitted_at),
        (gettext("Claimed by a worker"), job.claimed_at),
        (gettext("First token"), job.first_token_at),
        (gettext("Finished"), job.finished_at),
    ]
    steps = []
    before: datetime | None = None
    for title, at in points:
        # What never happened to an ended job is no step of it.
        if at is None and job.finished_at is not None:
            continue
        since = duration_text(at - before) if at and before else ""
        steps.append(Step(title, at, since))
        before = at or before
    return steps


def queue_facts(job: Job) -> list[tuple[Text, str]]:
    """Where a waiting job stands, and how long it is likely to wait; nothing of any other."""
    place = place_of(job)
    if place is None:
        return []
    facts: list[tuple[Text, str]] = [(_("Place in the queue"), str(place.position))]
    if place.wait_seconds is not None:
        facts.append((_("Expected wait"), about(place.wait_seconds)))
    return facts


def result_facts(job: Job) -> list[tuple[Text, Any]]:
    """Until when a submitted job's result can be fetched by the key that submitted it."""
    if job.gateway or job.state != JobState.SUCCEEDED:
        return []
    return [(_("Result is kept until"), result_expiry(job) or _("It is deleted"))]


def _cancel(request: HttpRequest, job: Job, data: dict[str, Any]) -> str:
    cancel_job(context=context_of(request), job_id=job.pk)
    return reverse("admin:inference_job_change", args=[job.pk])


def _may_end(job: Job) -> bool:
    return job.finished_at is None and job.cancel_requested_at is None


def _flat(parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values in order; what stands under a name, such as metadata, by itself."""
    found: list[tuple[str, Any]] = []
    for name, value in sorted(parameters.items()):
        inner = _flat(value) if isinstance(value, dict) else [("", value)]
        found += [(f"{name}.{key}" if key else name, each) for key, each in inner]
    return found


@admin.register(Job)
class JobAdmin(PortalModelAdmin):
    """Generations of the active tenant."""

    view_action = Action.JOB_READ
    detail_template = "site/job.html"
    pages = (
        FormPage(
            name="cancel",
            action=Action.JOB_CANCEL,
            title=_("Cancel the job"),
            form=ServiceForm,
            submit=_cancel,
            button=_("Cancel the job"),
            intro=_("It ends within moments. What was not delivered is not charged."),
            done=_("The job is being cancelled."),
            danger=True,
            icon="cancel",
            offered=_may_end,
        ),
    )
    paginator = InfinitePaginator
    empty_title = _("No job yet")
    empty_text = _("Each call of a model is a job. Make an API key, or try the playground.")
    list_display = (
        "admitted",
        "state_label",
        "sku",
        "kind_text",
        "priority_text",
        "api_key_name",
        "prompt_tokens",
        "watermark",
        "took",
    )
    list_filter = ("state", KindFilter, "priority", AgeFilter, "stream")
    search_fields = ("request_id", "sku", "api_key__name")
    ordering = ("-id",)
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return jobs().prefetch_related("deployment")

    @display(description=_("Admitted"))
    def admitted(self, job: Job) -> str:
        return formats.date_format(timezone.localtime(job.admitted_at), "SHORT_DATETIME_FORMAT")

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, job: Job) -> tuple[str, str]:
        return JOB_STATE_KINDS[JobState(job.state)], str(job.get_state_display())

    @display(description=_("Kind"))
    def kind_text(self, job: Job) -> Text:
        return KIND_TEXTS.get(job.kind, job.kind)

    @display(description=_("Priority"))
    def priority_text(self, job: Job) -> str:
        return str(job.get_priority_display())

    @display(description=_("API key"))
    def api_key_name(self, job: Job) -> str:
        return job.api_key.name

    @display(description=_("Took"))
    def took(self, job: Job) -> str:
        return duration_text(job.finished_at - job.admitted_at) if job.finished_at else ""

    def detail_context(self, request: HttpRequest, obj: Job) -> dict[str, Any]:
        charge = LedgerEntry.objects.filter(job_id=obj.pk).first()
        context = context_of(request)
        events = (
            read_events(context, EventFilter(subject=str(obj.pk))).events
            if may(request, Action.AUDIT_READ)
            else ()
        )
        cost: Text
        if charge is not None:
            cost = money(charge.cost, charge.currency)
        elif obj.finished_at is None:
            cost = _("Not settled yet")
        else:
            cost = _("Nothing was charged")
        return {
            "timeline": timeline(obj),
            "state_kind": JOB_STATE_KINDS[JobState(obj.state)],
            "error": ERROR_TEXTS.get(obj.error_code) or obj.error_message or obj.error_code,
            "error_detail": obj.error_message if obj.error_code in ERROR_TEXTS else "",
            "facts": [
                *queue_facts(obj),
                (_("Model"), obj.sku),
                (_("Kind"), KIND_TEXTS.get(obj.kind, obj.kind)),
                (_("Priority"), obj.get_priority_display()),
                (_("Prompt tokens"), obj.prompt_tokens),
                (_("Completion tokens"), obj.watermark),
                (_("Cost"), cost),
                (_("Why it ended"), FINISH_TEXTS.get(obj.finish_reason, obj.finish_reason)),
                *result_facts(obj),
                (_("Streaming"), _("Yes") if obj.stream else _("No")),
                (_("API key"), obj.api_key.name),
                (_("User"), obj.user.label),
                (_("Deployment"), obj.deployment.name),
                (_("Worker"), obj.worker),
                (_("Attempts"), obj.attempts),
                (_("Request"), obj.request_id),
            ],
            "parameters": _flat(obj.parameters),
            "events": events,
            "may_audit": may(request, Action.AUDIT_READ),
        }
