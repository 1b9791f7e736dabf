"""Reading the audit trail; every reading is itself an event in it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet

from audit.models import AuditEvent, Category, Outcome
from audit.services import Event, record
from portal.core.actors import Context
from portal.core.database_roles import database_roles
from portal.core.errors import Invalid, NotFound
from portal.core.tenancy import role_scope


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted; an empty field asks for all.

    ``actor`` and ``action`` match any part; ``subject`` an object's id or any part of its label;
    ``request_id`` the portal's own or the caller's.
    """

    since: datetime | None = None
    until: datetime | None = None
    category: str = ""
    actor: str = ""
    action: str = ""
    outcome: str = ""
    subject: str = ""
    request_id: str = ""
    tenant_id: UUID | None = None

    def described(self) -> dict[str, str]:
        """The fields that are set, as the trail records them."""
        return {
            name: str(value) for name in self.__dataclass_fields__ if (value := getattr(self, name))
        }

    def condition(self) -> Q:
        """The filter as a condition on ``AuditEvent``."""
        wanted = Q()
        if self.since:
            wanted &= Q(recorded_at__gte=self.since)
        if self.until:
            wanted &= Q(recorded_at__lt=self.until)
        if self.category:
            wanted &= Q(category=self.category)
        if self.actor:
            wanted &= Q(actor_label__icontains=self.actor)
        if self.action:
            wanted &= Q(action__icontains=self.action)
        if self.outcome:
            wanted &= Q(outcome=self.outcome)
        if self.subject:
            wanted &= Q(object_id=self.subject) | Q(object_label__icontains=self.subject)
        if self.request_id:
            wanted &= Q(request_id=self.request_id) | Q(client_request_id=self.request_id)
        if self.tenant_id:
            wanted &= Q(tenant_id=self.tenant_id)
        return wanted


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: its last event's time and id."""

    recorded_at: datetime
    event_id: UUID

    def __str__(self) -> str:
        return f"{self.recorded_at.isoformat()}_{self.event_id}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Reads what ``str()`` wrote.

        Raises:
            Invalid: if it is something else.
        """
        moment, _, event_id = text.partition("_")
        try:
            position = cls(datetime.fromisoformat(moment), UUID(event_id))
        except ValueError:
            raise Invalid("The position in the list is malformed.", param="before") from None
        if position.recorded_at.tzinfo is None:
            raise Invalid("The position in the list is malformed.", param="before")
        return position


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first, and where the next page begins, if there is one."""

    events: tuple[AuditEvent, ...]
    following: Position | None


def reader_role(context: Context) -> str:
    """The database role that reads the trail for this context: one tenant's or everyone's.

    The caller has asked the permission table before.
    """
    roles = database_roles()
    return roles.audit_reader_all if context.tenant_id is None else roles.audit_reader


def _newest(wanted: EventFilter, before: Position | None) -> QuerySet[AuditEvent]:
    found = AuditEvent.objects.filter(wanted.condition())
    if before is not None:
        found = found.filter(
            Q(recorded_at__lt=before.recorded_at)
            | Q(recorded_at=before.recorded_at, id__lt=before.event_id)
        )
    return found.order_by("-recorded_at", "-id")


def read_events(
    context: Context, wanted: EventFilter, *, limit: int = 50, before: Position | None = None
) -> EventPage:
    """One page of events; records who read, with what filter, and how many rows."""
    with role_scope(context, reader_role(context)):
        newest = _newest(wanted, before)
        if context.tenant_id is not None:
            # Named, though the role sees no other: only of a tenant that it knows does the planner
            # know how many events it has, and that sorting them would be dear.
            newest = newest.filter(tenant_id=context.tenant_id)
        found = list(newest[: limit + 1])
        events = tuple(found[:limit])
        record(
            Event(
                Category.ACCESS,
                "audit.list",
                Outcome.SUCCESS,
                object_type="audit.event",
                detail={"filter": wanted.described(), "rows": len(events)},
            ),
            context=context,
        )
    last = events[-1] if len(found) > limit else None
    return EventPage(events, Position(last.recorded_at, last.id) if last else None)


def read_event(context: Context, event_id: UUID) -> tuple[AuditEvent, tuple[AuditEvent, ...]]:
    """One event with its body, and the other events of the same request, oldest first.

    Raises:
        NotFound: if the caller's trail has no such event.
    """
    with role_scope(context, reader_role(context)):
        event = AuditEvent.objects.select_related("body").filter(pk=event_id).first()
        if event is None:
            raise NotFound("There is no such audit event.")
        related: tuple[AuditEvent, ...] = ()
        if event.request_id:
            related = tuple(
                AuditEvent.objects.filter(request_id=event.request_id)
                .exclude(pk=event.pk)
                .order_by("recorded_at", "id")[:100]
            )
        record(
            Event(
                Category.ACCESS,
                "audit.read",
                Outcome.SUCCESS,
                object_type="audit.event",
                object_id=str(event.pk),
                object_label=event.action,
                detail={"rows": 1 + len(related)},
            ),
            context=context,
        )
    return event, related
