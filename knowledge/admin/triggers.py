"""Pages of triggers: what starts apps, by which rules, and how their runs went."""

import json
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from knowledge.admin.base_forms import EmptyForm
from knowledge.admin.trigger_forms import EditTriggerForm, StartForm, TriggerForm
from knowledge.admin.trigger_words import condition_in_words
from knowledge.models import Trigger, TriggerKind, TriggerRunState
from knowledge.triggers import selectors, services
from knowledge.triggers.rules import read_condition, read_rules
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    Text,
    context_of,
    display,
    in_words,
    may,
)
from tenants.permissions import Action

_SHOWN_RUNS = 50
_RUN_KINDS = {
    TriggerRunState.WAITING: "default",
    TriggerRunState.RUNNING: "info",
    TriggerRunState.SUCCEEDED: "success",
    TriggerRunState.FAILED: "danger",
}


def _page(trigger: Trigger) -> str:
    return reverse("admin:knowledge_trigger_change", args=[trigger.pk])


def _create(request: HttpRequest, _subject: None, data: dict[str, Any]) -> str:
    given = {**data, "app_id": UUID(data["app_id"])}
    return _page(services.create_trigger(context=context_of(request), **given))


def _edit(request: HttpRequest, trigger: Trigger, data: dict[str, Any]) -> str:
    services.edit_trigger(context=context_of(request), trigger_id=trigger.pk, **data)
    return _page(trigger)


def _start(request: HttpRequest, trigger: Trigger, data: dict[str, Any]) -> str:
    services.start_trigger(context=context_of(request), trigger_id=trigger.pk, **data)
    return _page(trigger)


def _pause(request: HttpRequest, trigger: Trigger, _data: dict[str, Any]) -> str:
    services.edit_trigger(context=context_of(request), trigger_id=trigger.pk, enabled=False)
    return _page(trigger)


def _resume(request: HttpRequest, trigger: Trigger, _data: dict[str, Any]) -> str:
    services.edit_trigger(context=context_of(request), trigger_id=trigger.pk, enabled=True)
    return _page(trigger)


def _delete(request: HttpRequest, trigger: Trigger, _data: dict[str, Any]) -> str:
    services.delete_trigger(context=context_of(request), trigger_id=trigger.pk)
    return reverse("admin:knowledge_trigger_changelist")


@admin.register(Trigger)
class TriggerAdmin(PortalModelAdmin):
    """The triggers of the active tenant."""

    view_action = Action.APP_READ
    detail_template = "site/trigger.html"
    list_text = _("What starts apps by itself: a schedule, or events about which rules decide.")
    empty_title = _("No trigger yet")
    empty_text = _("Make one for an app of the mode 'run': its runs are listed here.")
    list_display = ("name", "state_label", "kind_label", "app_name", "last_run", "failures")
    search_fields = ("name",)
    ordering = ("name",)
    sortable_by = ()
    add_page = FormPage(
        "add", Action.APP_EDIT, _("New trigger"), TriggerForm, _create, button=_("Create trigger")
    )
    pages = (
        FormPage(
            "edit",
            Action.APP_EDIT,
            _("Edit"),
            EditTriggerForm,
            _edit,
            button=_("Save"),
            done=_("The trigger is saved."),
        ),
        FormPage(
            "start",
            Action.APP_EDIT,
            _("Run now"),
            StartForm,
            _start,
            button=_("Run now"),
            done=_("The app is being started."),
        ),
        FormPage(
            "pause",
            Action.APP_EDIT,
            _("Pause"),
            EmptyForm,
            _pause,
            button=_("Pause"),
            intro=_("It starts nothing until you resume it; what runs already goes on."),
            offered=lambda trigger: trigger.enabled,
        ),
        FormPage(
            "resume",
            Action.APP_EDIT,
            _("Resume"),
            EmptyForm,
            _resume,
            button=_("Resume"),
            offered=lambda trigger: not trigger.enabled,
        ),
        FormPage(
            "delete",
            Action.APP_EDIT,
            _("Delete trigger"),
            EmptyForm,
            _delete,
            button=_("Delete trigger"),
            intro=_("The record of its runs is deleted with it. The app stays."),
            done=_("The trigger is deleted."),
            danger=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trigger]:
        return selectors.triggers()

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, trigger: Trigger) -> tuple[str, str]:
        return _state(trigger)

    @display(description=_("started by"))
    def kind_label(self, trigger: Trigger) -> str:
        return str(trigger.get_kind_display())

    @display(description=_("App"))
    def app_name(self, trigger: Trigger) -> str:
        return trigger.app.name

    @display(description=_("Last run"))
    def last_run(self, trigger: Trigger) -> Any:
        return trigger.last_run_at  # type: ignore[attr-defined]

    @display(description=_("Failures"))
    def failures(self, trigger: Trigger) -> str:
        return _failures(trigger)

    def detail_context(self, request: HttpRequest, obj: Trigger) -> dict[str, Any]:
        runs = selectors.runs().filter(trigger_id=obj.pk)[:_SHOWN_RUNS]
        jobs = may(request, Action.JOB_READ)
        return {
            "state": _state(obj),
            "facts": _facts(obj),
            "rules": [
                (rule.name, f"{rule.weight:g}", condition_in_words(rule.when))
                for rule in read_rules(obj.rules)
            ],
            "runs": [
                {
                    "run": run,
                    "kind": _RUN_KINDS[TriggerRunState(run.state)],
                    "why": in_words(run.error or run.waiting_for),
                    "job": reverse("admin:inference_job_change", args=[run.job_id])
                    if jobs and run.job_id
                    else None,
                }
                for run in runs
            ],
        }


def _state(trigger: Trigger) -> tuple[str, str]:
    if not trigger.enabled:
        return "default", gettext("Paused")
    return "success", gettext("Active")


def _failures(trigger: Trigger) -> str:
    said = gettext("%(failed)s of %(all)s runs")
    counts = {"failed": trigger.failed_count, "all": trigger.run_count}  # type: ignore[attr-defined]
    return said % counts


def _facts(trigger: Trigger) -> list[tuple[Text, Any]]:
    by_event = trigger.kind == TriggerKind.EVENT
    started: list[tuple[Text, Any]] = (
        [
            (_("Stream"), trigger.stream),
            (_("Weight that starts the app"), f"{trigger.threshold:g}"),
            (_("Pause of a subject, in minutes"), str(trigger.cooldown_minutes)),
        ]
        if by_event
        else [(_("Schedule"), trigger.schedule), (_("Next run"), trigger.next_at)]
    )
    return [
        (_("App"), trigger.app.name),
        *started,
        (_("Inputs"), _json(trigger.inputs)),
        (_("Alert when"), _alert(trigger)),
        (_("Alerts are told to"), trigger.receiver),
        (_("Failures"), _failures(trigger)),
        (_("Days that contents are kept"), str(trigger.keep_days)),
        (_("Id"), trigger.pk),
    ]


def _alert(trigger: Trigger) -> str | None:
    if not trigger.alert_when:
        return None
    return condition_in_words(read_condition(trigger.alert_when, "alert_when"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
