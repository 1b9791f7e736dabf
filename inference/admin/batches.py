"""Admin pages of batches: how far they are, what went wrong, and their end."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.paginator import InfinitePaginator

from inference.admin.words import duration_text
from inference.batches.selectors import batches
from inference.batches.services import CANCELLABLE, cancel_batch
from inference.models import Batch, BatchState
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Text,
    context_of,
    display,
)
from tenants.permissions import Action

STATE_KINDS = {
    BatchState.VALIDATING: "info",
    BatchState.IN_PROGRESS: "info",
    BatchState.FINALIZING: "info",
    BatchState.CANCELLING: "warning",
    BatchState.COMPLETED: "success",
    BatchState.FAILED: "danger",
    BatchState.EXPIRED: "danger",
    BatchState.CANCELLED: "warning",
}

FAULT_TEXTS: dict[str, Text] = {
    "invalid_json_line": _("This line is not JSON."),
    "missing_required_parameter": _("This line lacks a field that it needs."),
    "line_too_long": _("This line is longer than a request may be."),
    "duplicate_custom_id": _("Another line has the same custom_id."),
    "invalid_custom_id": _("The custom_id is empty, too long or holds a NUL character."),
    "invalid_method": _("The method must be POST."),
    "invalid_url": _("The url is not the batch's endpoint."),
    "mismatched_model": _("Every line must name the same model."),
    "invalid_body": _("The body must be an object that names a model."),
    "empty_file": _("The input file holds no request."),
    "too_many_requests": _("There are more requests than a batch may have."),
    "invalid_api_key": _("The batch's API key is revoked or has expired."),
    "input_unreadable": _("The input file can't be read any more."),
}


def progress_text(batch: Batch) -> str:
    """How many requests have ended, of how many."""
    return gettext("%(done)s of %(total)s") % {
        "done": formats.number_format(batch.completed + batch.failed, force_grouping=True),
        "total": formats.number_format(batch.total, force_grouping=True),
    }


def _cancel(request: HttpRequest, batch: Batch, _data: dict[str, Any]) -> str:
    cancel_batch(context=context_of(request), batch_id=batch.pk)
    return reverse("admin:inference_batch_change", args=[batch.pk])


@admin.register(Batch)
class BatchAdmin(PortalModelAdmin):
    """Batches of the active tenant."""

    view_action = Action.JOB_READ
    detail_template = "site/batch.html"
    paginator = InfinitePaginator
    empty_title = _("No batch yet")
    empty_text = _("A batch runs the requests of one file when there is room for them.")
    list_display = ("created", "state_label", "model", "progress", "failed", "key_name", "took")
    list_filter = ("state",)
    ordering = ("-id",)
    sortable_by = ()
    pages = (
        FormPage(
            "cancel",
            Action.JOB_CANCEL,
            _("Cancel batch"),
            ServiceForm,
            _cancel,
            button=_("Cancel batch"),
            intro=_(
                "Answers that are there are kept and paid for. Requests that have not ended are "
                "not run, and stand in the file of errors."
            ),
            done=_("The batch is being cancelled."),
            danger=True,
            icon="cancel",
            offered=lambda batch: batch.state in CANCELLABLE,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Batch]:
        return batches()

    @display(description=_("Created"))
    def created(self, batch: Batch) -> str:
        return formats.date_format(timezone.localtime(batch.created_at), "SHORT_DATETIME_FORMAT")

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, batch: Batch) -> tuple[str, str]:
        return STATE_KINDS[BatchState(batch.state)], str(batch.get_state_display())

    @display(description=_("Progress"))
    def progress(self, batch: Batch) -> str:
        return progress_text(batch)

    @display(description=_("API key"))
    def key_name(self, batch: Batch) -> str:
        return batch.api_key.name

    @display(description=_("Took"))
    def took(self, batch: Batch) -> str:
        return duration_text(batch.ended_at - batch.created_at) if batch.ended_at else ""

    def detail_context(self, request: HttpRequest, obj: Batch) -> dict[str, Any]:
        facts: list[tuple[Text, Any]] = [
            (_("Name of the batch"), f"batch_{obj.pk.hex}"),
            (_("Model"), obj.model),
            (_("Endpoint"), obj.endpoint),
            (_("Progress"), progress_text(obj)),
            (_("Completed"), obj.completed),
            (_("Failed"), obj.failed),
            (_("Prompt tokens"), obj.prompt_tokens),
            (_("Completion tokens"), obj.completion_tokens),
            (_("API key"), obj.api_key.name),
            (_("User"), obj.user.email),
            (_("Created"), obj.created_at),
            (_("Expires"), obj.expires_at),
            (_("Ended"), obj.ended_at),
        ]
        return {
            "state_kind": STATE_KINDS[BatchState(obj.state)],
            "facts": facts,
            "faults": [
                (fault["line"], fault["code"], FAULT_TEXTS.get(fault["code"], fault["message"]))
                for fault in obj.errors
            ],
            "percent": 100 * (obj.completed + obj.failed) // obj.total if obj.total else 0,
            "metadata": sorted((obj.metadata or {}).items()),
            "jobs": reverse("admin:inference_job_changelist") + f"?q=batch_{obj.pk.hex}",
        }
