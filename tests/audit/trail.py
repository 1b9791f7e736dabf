"""Reading the trail in tests: as a superuser, so that nothing is hidden."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its body."""

    id: UUID
    tenant_id: UUID
    category: str
    action: str
    outcome: str
    reason: str
    actor_type: str
    actor_id: UUID | None
    actor_label: str
    on_behalf_of: UUID | None
    api_key_id: UUID | None
    auth_method: str
    address: str | None
    request_id: str
    client_request_id: str | None
    object_type: str
    object_id: str
    object_label: str
    intent_id: UUID | None
    xid: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    detail: dict[str, Any] | None


_QUERY = """
SELECT e.id, e.tenant_id, category, action, outcome, reason, actor_type, actor_id, actor_label,
       on_behalf_of, api_key_id, auth_method, host(address) AS address, request_id,
       client_request_id, object_type, object_id, object_label, intent_id,
       xid::text::bigint AS xid, before, after, detail
  FROM audit_event e LEFT JOIN audit_body b ON b.event_id = e.id AND b.recorded_at = e.recorded_at
"""


def _events(
    superuser: psycopg.Connection, condition: str, parameters: list[object]
) -> list[Recorded]:
    with superuser.cursor(row_factory=class_row(Recorded)) as cursor:
        query = f"{_QUERY} WHERE {condition} ORDER BY e.recorded_at, e.id"
        return cursor.execute(query.encode(), parameters).fetchall()


def changes_of(superuser: psycopg.Connection, object_id: UUID) -> list[Recorded]:
    """The recorded row changes of one object, oldest first."""
    return _events(superuser, "category = 'change' AND object_id = %s", [str(object_id)])


def events_of_tenant(superuser: psycopg.Connection, tenant_id: UUID) -> list[Recorded]:
    """Everything recorded for a tenant, oldest first."""
    return _events(superuser, "e.tenant_id = %s", [tenant_id])


def event(superuser: psycopg.Connection, event_id: UUID) -> Recorded:
    """One event by its id."""
    (found,) = _events(superuser, "e.id = %s", [event_id])
    return found
