"""Writing the audit trail.

Every function writes inside the caller's transaction: if the event can't be recorded, what it
speaks of does not happen.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from audit.models import Category, Outcome
from portal.core.actors import NIL_TENANT, Context
from portal.core.ids import uuid7
from portal.core.tenancy import current_context


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be recorded; who, where from and for which tenant come from the context."""

    category: Category
    action: str
    outcome: Outcome
    reason: str = ""
    object_type: str = ""
    object_id: str = ""
    object_label: str = ""
    detail: Mapping[str, Any] | None = None
    occurred_at: datetime | None = None
    id: UUID = field(default_factory=uuid7)


_INSERT_EVENT = """
INSERT INTO audit_event (
    id, tenant_id, category, action, outcome, reason, actor_type, actor_id, actor_label,
    on_behalf_of, api_key_id, auth_method, address, request_id, client_request_id,
    object_type, object_id, object_label, occurred_at, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
    coalesce(%s, statement_timestamp()), statement_timestamp())
"""

_INSERT_BODY = """
INSERT INTO audit_body (event_id, recorded_at, tenant_id, detail)
VALUES (%s, statement_timestamp(), %s, %s)
"""

# One statement, so that both rows carry one time and fall into partitions of one month.
_INSERT_EVENT_AND_BODY = f"WITH event AS ({_INSERT_EVENT}) {_INSERT_BODY}"


def record(event: Event, *, context: Context | None = None) -> UUID:
    """Writes one event in the open scope's transaction and returns its id.

    Args:
        context: who acts; the scope's own context if not given.
    """
    who = context or current_context()
    tenant = who.tenant_id or NIL_TENANT
    values: list[Any] = [
        event.id,
        tenant,
        event.category,
        event.action[:80],
        event.outcome,
        event.reason[:300],
        who.actor.type,
        who.actor.id,
        who.actor.label[:254],
        who.on_behalf_of,
        who.api_key_id,
        who.auth_method[:20],
        who.address,
        who.request_id[:64],
        who.client_request_id and who.client_request_id[:128],
        event.object_type,
        event.object_id[:80],
        event.object_label[:254],
        event.occurred_at,
    ]
    statement = _INSERT_EVENT
    if event.detail is not None:
        statement = _INSERT_EVENT_AND_BODY
        values += [event.id, tenant, json.dumps(event.detail, default=str)]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
    return event.id


@contextmanager
def intent(
    action: str,
    *,
    object_type: str = "",
    object_id: object = "",
    object_label: str = "",
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Iterator[UUID]:
    """Records what a service is about to do; the row changes inside point to it.

    Yields the event's id. It commits or rolls back with the change itself.
    """
    event = Event(
        Category.INTENT,
        action,
        Outcome.SUCCESS,
        reason=reason,
        object_type=object_type,
        object_id=str(object_id),
        object_label=object_label,
        detail=detail,
    )
    record(event)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('portal.intent_id', true)")
        outer = cursor.fetchone()[0] or ""
        cursor.execute("SELECT set_config('portal.intent_id', %s, true)", [str(event.id)])
        yield event.id
        cursor.execute("SELECT set_config('portal.intent_id', %s, true)", [outer])


def record_platform_scope(context: Context, reason: str) -> None:
    """Records that work is about to cross tenants."""
    record(
        Event(Category.ACCESS, "platform.scope", Outcome.SUCCESS, reason=reason), context=context
    )


def ensure_partitions(*, months: int = 3) -> int:
    """Makes the trail's monthly partitions from this month to ``months`` ahead.

    Returns how many were made.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit_ensure_partitions(%s)", [months])
        return int(cursor.fetchone()[0])
