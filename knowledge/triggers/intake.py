"""Taking events in: checked, encrypted, and written down before they are acknowledged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from django.utils import timezone

from audit.services import intent
from knowledge.models import StreamEvent
from knowledge.models.triggers import MOST_STREAM_CHARS
from knowledge.triggers.events import TriggerEvent
from knowledge.triggers.vault import Told, newest_cipher, seal_told, subject_of
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Conflict, Invalid
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant

MOST_EVENTS: Final = 100
"""So many are sent at once."""

MOST_BYTES: Final = 16_384
"""So much the data of one may take, as JSON."""

MOST_ID_CHARS: Final = 100
_STREAM: Final = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{MOST_STREAM_CHARS - 2}}}[a-z0-9])?")
_AHEAD: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Incoming:
    """An event as its sender tells it, in the words of CloudEvents.

    Attributes:
        data: what happened, a JSON object.
        subject: what it is about, such as an account or a device; windows count by it.
        id: the sender's name for it: the same one again is the same event.
        at: when it happened; None for now.
    """

    data: Mapping[str, Any]
    subject: str = ""
    type: str = ""
    id: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """How many events are new, and how many were here already."""

    accepted: int
    repeated: int


def accept_events(
    *,
    context: Context,
    stream: str,
    events: Sequence[Incoming],
    idempotency_key: str | None = None,
) -> Accepted:
    """Keeps events until the triggers of their stream have looked at them; all or none.

    An event that has been acknowledged is not lost, and starts each trigger once at most.

    Args:
        stream: 1 to 60 of a-z, 0-9 and hyphens; nothing has to be made before.
        events: 1 to 100.
        idempotency_key: names the events that have no id of their own, by their places.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming what is wrong; of no event of the request anything is kept.
        Conflict: the tenant keeps as many events as it may.
    """
    require(context, Action.EVENT_SEND)
    tenant_id = require_tenant(context)
    clean_stream(stream)
    if not 1 <= len(events) <= MOST_EVENTS:
        raise Invalid(f"Send 1 to {MOST_EVENTS} events.", param="events")
    now = timezone.now()
    with tenant_scope(context):
        _refuse_too_many(tenant_id, len(events))
        version, cipher = newest_cipher(tenant_id)
        rows = []
        for place, one in enumerate(events):
            told = _told(one, place)
            row = StreamEvent(
                tenant_id=tenant_id,
                stream=stream,
                source_id=_source_id(one, place, idempotency_key),
                subject=subject_of(cipher, stream, told.subject),
                at=_time(one, place, now),
                data_key_version=version,
                wake_at=now,
                received_at=now,
                expires_at=now + timedelta(days=env().event_days),
            )
            seal_told(cipher, row, told)
            if row.size > MOST_BYTES:
                raise _wrong(place, f"takes more than {MOST_BYTES} bytes")
            rows.append(row)
        return _keep(tenant_id, stream, rows)


def clean_stream(stream: str) -> str:
    """The name of a stream.

    Raises:
        Invalid: it is none.
    """
    if not _STREAM.fullmatch(stream):
        raise Invalid(
            f"'stream' has 1 to {MOST_STREAM_CHARS} of a-z, 0-9 and hyphens, such as "
            "card-payments.",
            param="stream",
        )
    return stream


def _keep(tenant_id: UUID, stream: str, rows: list[StreamEvent]) -> Accepted:
    # Of two requests with the same event the second waits for the first, and finds it there.
    with intent(
        TriggerEvent.ACCEPT_EVENTS,
        object_type="knowledge.stream",
        object_label=stream,
        detail={"events": len(rows)},
    ):
        StreamEvent.objects.bulk_create(rows, ignore_conflicts=True)
    new = StreamEvent.objects.filter(tenant_id=tenant_id, pk__in=[row.pk for row in rows]).count()
    return Accepted(new, len(rows) - new)


def _refuse_too_many(tenant_id: UUID, more: int) -> None:
    most = env().max_tenant_events
    if StreamEvent.objects.filter(tenant_id=tenant_id).count() + more > most:
        raise Conflict(
            f"The streams of this tenant hold {most} events, as many as they may: send less, or "
            "have MAX_TENANT_EVENTS raised.",
            code="events_full",
        )


def _told(one: Incoming, place: int) -> Told:
    try:
        subject = clean_text(one.subject, "subject", most=200)
        kind = clean_text(one.type, "type", most=100)
    except Invalid as refusal:
        raise Invalid(refusal.message, param=f"events[{place}].{refusal.param}") from None
    if b"\\u0000" in msgspec.json.encode(one.data):
        raise _wrong(place, "holds a NUL character")
    return Told(subject, kind, dict(one.data))


def _source_id(one: Incoming, place: int, idempotency_key: str | None) -> str:
    name = one.id or (f"{idempotency_key}/{place}" if idempotency_key else uuid7().hex)
    longest = MOST_ID_CHARS + len(f"/{MOST_EVENTS}")
    if len(name) > longest or not name.isprintable():
        raise _wrong(place, f"has an id of more than {MOST_ID_CHARS} characters, or a strange one")
    return name


def _time(one: Incoming, place: int, now: datetime) -> datetime:
    at = one.at or now
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    if at > now + _AHEAD:
        raise _wrong(place, "has a time in the future")
    if at < now - timedelta(days=env().event_days):
        raise _wrong(place, f"is older than the {env().event_days} days that events are kept")
    return at


def _wrong(place: int, what: str) -> Invalid:
    return Invalid(f"The event number {place + 1} {what}.", param=f"events[{place}]")
