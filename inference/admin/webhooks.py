"""Pages of webhooks: the delivery log, a trial, and the secret that signs them."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.paginator import InfinitePaginator

from inference.admin.words import duration_text
from inference.models import WebhookAttempt, WebhookDelivery, WebhookSecret, WebhookState
from inference.webhooks import selectors, services
from inference.webhooks.signing import message_id
from portal.core.outgoing import MOST_URL_CHARS
from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    context_of,
    display,
    in_words,
    may,
)
from tenants.admin.common import secret_page
from tenants.admin.keys import OVERLAPS
from tenants.permissions import Action

STATE_KINDS = {
    WebhookState.WAITING: "default",
    WebhookState.PENDING: "info",
    WebhookState.DELIVERED: "success",
    WebhookState.FAILED: "danger",
}


class TestForm(ServiceForm):
    url = forms.CharField(
        label=_("URL"),
        max_length=MOST_URL_CHARS,
        help_text=_("Where the event is sent, such as https://hooks.example.com/freehold."),
        widget=forms.URLInput(attrs=INPUT),
    )


class SecretForm(ServiceForm):
    overlap_seconds = forms.TypedChoiceField(
        label=_("A present secret ends"),
        choices=OVERLAPS,
        initial=services.DEFAULT_OVERLAP_SECONDS,
        coerce=int,
        help_text=_(
            "Until then webhooks carry a signature by each of the two, so that you can change one "
            "receiver after another."
        ),
        widget=forms.Select(attrs=INPUT),
    )


def _milliseconds(count: int) -> str:
    return duration_text(timedelta(milliseconds=count))


def _test(request: HttpRequest, _obj: None, data: dict[str, Any]) -> HttpResponse:
    outcome = services.send_test_webhook(context=context_of(request), **data)
    context = {
        **admin.site.each_context(request),
        "title": _("Test event"),
        "crumbs": [{"title": _("Webhooks"), "link": _list()}],
        "outcome": outcome,
        "error": in_words(outcome.error),
        "facts": [
            (_("HTTP status"), outcome.status or _("No answer")),
            (_("Took"), _milliseconds(outcome.milliseconds)),
        ],
        "again": reverse("admin:inference_webhookdelivery_add"),
        "back": _list(),
    }
    return TemplateResponse(request, "site/webhook_test.html", context)


def _list() -> str:
    return reverse("admin:inference_webhookdelivery_changelist")


def _redeliver(request: HttpRequest, delivery: WebhookDelivery, data: dict[str, Any]) -> str:
    services.redeliver_webhook(context=context_of(request), delivery_id=delivery.pk)
    return reverse("admin:inference_webhookdelivery_change", args=[delivery.pk])


def _make_secret(request: HttpRequest, _obj: None, data: dict[str, Any]) -> HttpResponse:
    made = services.make_webhook_secret(context=context_of(request), **data)
    return secret_page(
        request,
        title=_("The signing secret is ready"),
        text=_("Give it to your receivers now: it is not shown again."),
        secret=made.secret,
        back=reverse("admin:inference_webhooksecret_changelist"),
    )


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(PortalModelAdmin):
    """The callbacks of the active tenant's jobs."""

    view_action = Action.WEBHOOK_READ
    add_page = FormPage(
        "add",
        Action.WEBHOOK_SEND,
        _("Send a test event"),
        TestForm,
        _test,
        button=_("Send"),
        intro=_(
            "A signed event that tells of no job goes to the URL now; you see what comes back. "
            "It needs a signing secret."
        ),
    )
    pages = (
        FormPage(
            "redeliver",
            Action.WEBHOOK_SEND,
            _("Deliver again"),
            ServiceForm,
            _redeliver,
            button=_("Deliver again"),
            intro=_(
                "It is sent within seconds, under the same webhook-id, and tried as often as a new "
                "one."
            ),
            done=_("The webhook is due now."),
            offered=lambda delivery: delivery.state != WebhookState.WAITING,
        ),
    )
    detail_template = "site/webhook.html"
    paginator = InfinitePaginator
    list_text = _(
        "How jobs ended is told to the callback URL that they were submitted with. Attempts that "
        "fail are repeated for about a day."
    )
    empty_title = _("No webhook yet")
    empty_text = _(
        "A job that is submitted with a callback URL appears here. Make a signing secret, then try "
        "your receiver with a test event."
    )
    list_display = (
        "created",
        "state_label",
        "origin",
        "job_link",
        "attempts",
        "last_status",
        "next_try",
    )
    list_filter = ("state",)
    search_fields = ("origin",)
    ordering = ("-id",)
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        return selectors.deliveries()

    @display(description=_("Created"))
    def created(self, delivery: WebhookDelivery) -> str:
        return _moment(delivery.created_at)

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, delivery: WebhookDelivery) -> tuple[str, str]:
        return STATE_KINDS[WebhookState(delivery.state)], str(delivery.get_state_display())

    @display(description=_("Job"))
    def job_link(self, delivery: WebhookDelivery) -> str:
        return str(delivery.job_id or delivery.event)

    @display(description=_("Next try"))
    def next_try(self, delivery: WebhookDelivery) -> str:
        return _moment(delivery.due_at) if delivery.due_at else ""

    def detail_context(self, request: HttpRequest, obj: WebhookDelivery) -> dict[str, Any]:
        log = selectors.get_delivery(obj.pk).log.all()
        return {
            "state_kind": STATE_KINDS[WebhookState(obj.state)],
            "error": in_words(obj.last_error),
            "job": reverse("admin:inference_job_change", args=[obj.job_id])
            if obj.job_id and may(request, Action.JOB_READ)
            else None,
            "facts": [
                (_("State"), obj.get_state_display()),
                (_("Receiver"), obj.origin),
                (_("webhook-id"), message_id(obj.pk)),
                (_("Job"), obj.job_id),
                (_("Attempts"), str(obj.attempts)),
                (_("Next try"), obj.due_at),
                (_("Created"), obj.created_at),
                (_("Finished"), obj.finished_at),
            ],
            "attempts": [(attempt, *_told(attempt)) for attempt in log],
        }


def _told(attempt: WebhookAttempt) -> tuple[str, str]:
    return _milliseconds(attempt.milliseconds), in_words(attempt.error) or gettext("Delivered")


def _moment(at: Any) -> str:
    return formats.date_format(timezone.localtime(at), "SHORT_DATETIME_FORMAT")


@admin.register(WebhookSecret)
class WebhookSecretAdmin(PortalModelAdmin):
    """The generations of the tenant's signing secret: the present one, and one in its overlap."""

    view_action = Action.WEBHOOK_READ
    add_page = FormPage(
        "add",
        Action.WEBHOOK_SECRET,
        _("New signing secret"),
        SecretForm,
        _make_secret,
        button=_("Make a secret"),
        intro=_(
            "Receivers verify with it that an event comes from here. It is shown once. A former "
            "secret that still signs beside the present one ends now."
        ),
    )
    list_text = _("Every webhook of this tenant is signed with this secret.")
    empty_title = _("No signing secret yet")
    empty_text = _("Webhooks are never sent unsigned: the owner makes the secret first.")
    list_display = ("number", "state_label", "created_at", "valid_until")
    list_display_links = None
    ordering = ("-generation",)
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookSecret]:
        return selectors.signing_secrets()

    @display(description=_("Generation"))
    def number(self, secret: WebhookSecret) -> str:
        return str(secret.generation)

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, secret: WebhookSecret) -> tuple[str, str]:
        if secret.valid_until is None:
            return "success", gettext("Signs")
        if secret.valid_until > timezone.now():
            return "info", gettext("Signs beside the present one")
        return "default", gettext("It has ended")
