"""Audit rows by the batch, for the data plane: plain SQL, fed by one JSON parameter a table.

The gateway and the workers write these in the very statement that admits or settles.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from audit.models import Category, Outcome
from portal.core.actors import Actor
from portal.core.ids import uuid7

_EVENT_COLUMNS: Final = {
    "id": "uuid",
    "recorded_at": "timestamptz",
    "tenant_id": "uuid",
    "category": "text",
    "action": "text",
    "outcome": "text",
    "reason": "text",
    "actor_type": "text",
    "actor_id": "uuid",
    "actor_label": "text",
    "api_key_id": "uuid",
    "auth_method": "text",
    "address": "inet",
    "request_id": "text",
    "client_request_id": "text",
    "object_type": "text",
    "object_id": "text",
    "object_label": "text",
    "occurred_at": "timestamptz",
}
_NAMES: Final = ", ".join(_EVENT_COLUMNS)
_TYPED: Final = ", ".join(f"{name} {kind}" for name, kind in _EVENT_COLUMNS.items())

INSERT_EVENTS: Final = (
    f"INSERT INTO audit_event ({_NAMES}) SELECT {_NAMES} FROM json_to_recordset(%s) AS x({_TYPED})"
)

INSERT_BODIES: Final = """
INSERT INTO audit_body (event_id, recorded_at, tenant_id, detail)
SELECT id, recorded_at, tenant_id, detail
  FROM json_to_recordset(%s) AS x(id uuid, recorded_at timestamptz, tenant_id uuid, detail jsonb)
"""


def event_row(
    *,
    recorded_at: datetime,
    occurred_at: datetime,
    tenant_id: UUID,
    category: Category,
    action: str,
    outcome: Outcome,
    actor: Actor,
    reason: str = "",
    api_key_id: UUID | None = None,
    auth_method: str = "",
    address: str | None = None,
    request_id: str = "",
    client_request_id: str | None = None,
    object_type: str = "",
    object_id: str = "",
    object_label: str = "",
) -> dict[str, Any]:
    """One row for ``INSERT_EVENTS``, with an id of its own."""
    return {
        "id": uuid7(),
        "recorded_at": recorded_at,
        "tenant_id": tenant_id,
        "category": category.value,
        "action": action[:80],
        "outcome": outcome.value,
        "reason": reason[:300],
        "actor_type": actor.type.value,
        "actor_id": actor.id,
        "actor_label": actor.label[:254],
        "api_key_id": api_key_id,
        "auth_method": auth_method,
        "address": address,
        "request_id": request_id[:64],
        "client_request_id": client_request_id,
        "object_type": object_type,
        "object_id": object_id,
        "object_label": object_label[:254],
        "occurred_at": occurred_at,
    }


def body_row(event: dict[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """The row for ``INSERT_BODIES`` that belongs to ``event``."""
    return {
        "id": event["id"],
        "recorded_at": event["recorded_at"],
        "tenant_id": event["tenant_id"],
        "detail": detail,
    }
