"""Pages of what is kept in step with Dify: the plan, what is to be decided, what was deleted."""

import json
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.paginator import InfinitePaginator

from knowledge.admin.base_forms import EmptyForm
from knowledge.models import (
    Connection,
    Decision,
    DeletionReceipt,
    RemoteObject,
    SyncState,
)
from knowledge.sync import selectors, services
from knowledge.sync.words import COLOURS, aspect_words, kind_words, what_of
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    context_of,
    display,
    in_words,
)
from tenants.permissions import Action

_SHOWN_STEPS = 100
_SHOWN_CHARS = 300


def sync_context(connection: Connection) -> dict[str, Any]:
    """What a connection's page says of how it is kept in step."""
    sync, queue = selectors.sync_of(connection), selectors.queue_of(connection)
    steps = selectors.steps_of(connection)
    return {
        "sync": sync,
        "queue": queue,
        "sync_problem": in_words(sync.error) if sync is not None else "",
        "counts": _counts(queue),
        "steps": [
            {
                "kind": kind_words(step.kind),
                "name": step.label,
                "what": what_of(step),
                "error": in_words(step.link.error) if step.link else "",
                "link": reverse("admin:knowledge_remoteobject_change", args=[step.link.pk])
                if step.link
                else "",
            }
            for step in steps[:_SHOWN_STEPS]
        ],
        "steps_more": max(0, len(steps) - _SHOWN_STEPS),
        "objects": reverse("admin:knowledge_remoteobject_changelist"),
        "receipts": reverse("admin:knowledge_deletionreceipt_changelist"),
    }


def _counts(queue: selectors.Queue) -> list[tuple[str, str, int]]:
    """Colour, words and number of each state that there is."""
    numbers = {
        SyncState.IN_STEP: queue.in_step,
        SyncState.WAITING: queue.waiting,
        SyncState.INDEXING: queue.indexing,
        SyncState.CONFLICT: queue.conflicts,
        SyncState.FAILED: queue.failed,
    }
    return [(COLOURS[s], str(s.label), n) for s, n in numbers.items() if n]


def sync_now(request: HttpRequest, connection: Connection, _data: dict[str, Any]) -> str:
    services.sync_now(context=context_of(request), connection_id=connection.pk)
    return reverse("admin:knowledge_connection_change", args=[connection.pk])


def set_paused(paused: bool) -> Any:
    def submit(request: HttpRequest, connection: Connection, _data: dict[str, Any]) -> str:
        services.set_paused(context=context_of(request), connection_id=connection.pk, paused=paused)
        return reverse("admin:knowledge_connection_change", args=[connection.pk])

    return submit


def is_paused(connection: Connection) -> bool:
    sync = selectors.sync_of(connection)
    return sync is not None and sync.paused


SYNC_PAGES = (
    FormPage(
        "sync",
        Action.KNOWLEDGE_EDIT,
        _("Sync now"),
        EmptyForm,
        sync_now,
        button=_("Sync now"),
        intro=_("Dify is looked at, and what waits to be tried again is tried at once."),
        done=_("It begins within a second or two."),
        offered=lambda connection: not is_paused(connection),
    ),
    FormPage(
        "pause",
        Action.CONNECTION_EDIT,
        _("Pause"),
        EmptyForm,
        set_paused(True),
        button=_("Pause"),
        intro=_(
            "Nothing is changed in Dify until you have it go on. What is changed here meanwhile "
            "waits, and stands in the plan."
        ),
        done=_("Paused."),
        offered=lambda connection: not is_paused(connection),
    ),
    FormPage(
        "resume",
        Action.CONNECTION_EDIT,
        _("Go on"),
        EmptyForm,
        set_paused(False),
        button=_("Go on"),
        intro=_("What waits in the plan is done now."),
        done=_("It goes on."),
        offered=is_paused,
    ),
)


def _decide(decision: Decision) -> Any:
    def submit(request: HttpRequest, link: RemoteObject, _data: dict[str, Any]) -> str:
        services.decide(context=context_of(request), remote_object_id=link.pk, decision=decision)
        return reverse("admin:knowledge_connection_change", args=[link.connection_id])

    return submit


def _undecided(link: RemoteObject) -> bool:
    return link.state == SyncState.CONFLICT


@admin.register(RemoteObject)
class RemoteObjectAdmin(PortalModelAdmin):
    """What of the active tenant stands in Dify, or is to stand there."""

    view_action = Action.CONNECTION_READ
    detail_template = "site/remote_object.html"
    paginator = InfinitePaginator
    list_text = _("Knowledge bases and documents as they stand in Dify.")
    empty_title = _("Nothing stands in Dify yet")
    empty_text = _("Choose a connection in the settings of a knowledge base.")
    list_display = ("label", "kind_label", "state_label", "note", "connection")
    list_filter = ("state",)
    search_fields = ("label", "remote_id")
    ordering = ("-id",)
    sortable_by = ()
    pages = (
        FormPage(
            "ours",
            Action.KNOWLEDGE_EDIT,
            _("Keep the portal's version"),
            EmptyForm,
            _decide(Decision.OURS),
            button=_("Keep the portal's version"),
            intro=_("What was changed in Dify is put back."),
            done=_("It is put back within a second or two."),
            offered=_undecided,
        ),
        FormPage(
            "theirs",
            Action.KNOWLEDGE_EDIT,
            _("Take Dify's version"),
            EmptyForm,
            _decide(Decision.THEIRS),
            button=_("Take Dify's version"),
            intro=_("What was changed in Dify is taken over here."),
            done=_("It is taken over within a second or two."),
            offered=_undecided,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[RemoteObject]:
        return RemoteObject.objects.select_related("connection").defer("connection__sealed")

    @display(description=_("Kind"))
    def kind_label(self, link: RemoteObject) -> str:
        return kind_words(link.kind)

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, link: RemoteObject) -> tuple[str, str]:
        return COLOURS[link.state], str(link.get_state_display())

    @display(description=_("Note"))
    def note(self, link: RemoteObject) -> str:
        return note_of(link)

    def detail_context(self, request: HttpRequest, obj: RemoteObject) -> dict[str, Any]:
        return {
            "crumbs": [
                {
                    "title": obj.connection.name,
                    "link": reverse("admin:knowledge_connection_change", args=[obj.connection_id]),
                }
            ],
            "state": (COLOURS[obj.state], obj.get_state_display()),
            "note": note_of(obj),
            "failed": obj.state == SyncState.FAILED,
            "facts": [
                (_("Kind"), kind_words(obj.kind)),
                (_("Waits since"), obj.waiting_since),
                (_("Tried again at"), obj.next_at),
                (_("Attempts"), obj.attempts or None),
                (_("In step since"), obj.synced_at),
                (_("Id in Dify"), obj.remote_id),
                (_("Id"), obj.local_id),
            ],
            "changed": changes_of(obj),
        }


def changes_of(link: RemoteObject) -> list[tuple[str, str, str]]:
    """Aspect, how it stood when it was last sent, how it stands in Dify now."""
    if link.gone:
        return []
    shown = link.shown if link.local_id is not None else {}
    return [
        (aspect_words(aspect), _short(shown.get(aspect)), _short(value))
        for aspect, value in sorted(link.seen.items())
        if value != shown.get(aspect)
    ]


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return gettext("Yes") if value else gettext("No")
    if isinstance(value, dict) and "words" in value:
        # A text is known by its length, and by an id that tells a reader nothing.
        return gettext("%(n)s words") % {"n": value["words"]}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_SHOWN_CHARS]


def note_of(link: RemoteObject) -> str:
    """What there is to say beside the state."""
    if link.error:
        return in_words(link.error)
    if link.gone:
        return gettext("It was deleted in Dify.")
    if link.local_id is None:
        return gettext("Somebody added it in Dify.")
    return ""


def sync_facts(local_id: UUID, connection_id: UUID | None) -> list[tuple[Any, Any]]:
    """Where an object stands in Dify, and how it does, as facts of its page."""
    if connection_id is None:
        return []
    link = RemoteObject.objects.filter(connection_id=connection_id, local_id=local_id).first()
    if link is None:
        return [(_("In Dify"), gettext("Not there yet"))]
    words = str(link.get_state_display())
    note = note_of(link)
    return [(_("In Dify"), f"{words}. {note}" if note else words)]


@admin.register(DeletionReceipt)
class DeletionReceiptAdmin(PortalModelAdmin):
    """What of the active tenant was deleted in Dify."""

    view_action = Action.CONNECTION_READ
    paginator = InfinitePaginator
    list_text = _("What was deleted in Dify, and when Dify confirmed that it is gone.")
    empty_title = _("Nothing has been deleted in Dify")
    empty_text = _("Each deletion there leaves a receipt here.")
    list_display = ("label", "kind_label", "remote_id", "inside", "deleted_at", "verified")
    list_display_links = None
    search_fields = ("label", "remote_id")
    ordering = ("-id",)
    sortable_by = ()

    @display(description=_("Kind"))
    def kind_label(self, receipt: DeletionReceipt) -> str:
        return kind_words(receipt.kind)

    @display(description=_("With it"))
    def inside(self, receipt: DeletionReceipt) -> str:
        count = len(receipt.contained)
        text = ngettext("%(n)s document", "%(n)s documents", count)
        return text % {"n": count} if count else ""

    @display(description=_("Confirmed"))
    def verified(self, receipt: DeletionReceipt) -> Any:
        return receipt.verified_at or gettext("No: Dify could not be asked")
