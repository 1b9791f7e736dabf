"""A call on its way through the gateway, and the audit rows that tell of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from audit.batch import body_row, event_row
from audit.models import Category, Outcome
from inference.gateway.admission import Admitted, Allowed, Call, KeyFacts, Refused, Verdict
from inference.gateway.catalogue import Served
from inference.payloads import Prompt
from portal.core.actors import ANONYMOUS, NIL_TENANT, Actor, ActorType

CHAT: Final = "inference.chat"
LIST_MODELS: Final = "inference.models"
UNKNOWN_ROUTE: Final = "inference.unknown_route"

_DENIED: Final = frozenset({401, 403, 404, 429})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from, and by which ids it is known."""

    request_id: str
    client_request_id: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class Generation:
    """What an admitted call will run: the job's columns and its prompt."""

    served: Served
    prompt: Prompt
    max_tokens: int
    stream: bool
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pending:
    """One call in admission's batch."""

    action: str
    origin: Origin
    call: Call
    arrived_at: datetime
    generation: Generation | None = None


Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def audit_rows(pending: Pending, verdict: Verdict, now: datetime, fingerprint: str | None) -> Rows:
    """The events and bodies of one call, as far as admission knows it."""
    if isinstance(verdict, Refused):
        return _refused(pending, verdict, now)
    if isinstance(verdict, Allowed):
        rows = [_event(pending, verdict.key, now, o) for o in (Outcome.REQUESTED, Outcome.SUCCESS)]
        return rows, []
    return _admitted(pending, verdict, now, fingerprint)


def _refused(pending: Pending, refused: Refused, now: datetime) -> Rows:
    error = refused.error
    outcome = Outcome.DENIED if error.error_status in _DENIED else Outcome.FAILURE
    event = _event(pending, refused.key, now, outcome, reason=error.error_code)
    detail: dict[str, Any] = {"status": error.error_status}
    if error.param is not None:
        detail["param"] = error.param
    if pending.call.ask is not None:
        detail["model"] = pending.call.ask.model_name
    return [event], [body_row(event, detail)]


def _admitted(pending: Pending, verdict: Admitted, now: datetime, fingerprint: str | None) -> Rows:
    generation = pending.generation
    assert generation is not None, "only generations are admitted"
    event = _event(
        pending,
        verdict.key,
        now,
        Outcome.REQUESTED,
        job_id=verdict.job_id,
        sku=generation.served.sku,
    )
    detail = {
        "stream": generation.stream,
        "parameters": generation.parameters,
        "prompt_tokens": len(generation.prompt.ids),
        "max_tokens": generation.max_tokens,
        "prompt_hmac": fingerprint,
    }
    return [event], [body_row(event, detail)]


def _event(
    pending: Pending,
    key: KeyFacts | None,
    now: datetime,
    outcome: Outcome,
    *,
    reason: str = "",
    job_id: UUID | None = None,
    sku: str = "",
) -> dict[str, Any]:
    origin = pending.origin
    return event_row(
        recorded_at=now,
        occurred_at=pending.arrived_at,
        tenant_id=key.tenant_id if key else NIL_TENANT,
        category=Category.JOB if job_id else Category.CALL,
        action=pending.action,
        outcome=outcome,
        actor=Actor(ActorType.API_KEY, key.id, key.name) if key else ANONYMOUS,
        reason=reason,
        api_key_id=key.id if key else None,
        auth_method="api_key" if key else "",
        address=origin.address,
        request_id=origin.request_id,
        client_request_id=origin.client_request_id,
        object_type="inference.job" if job_id else "",
        object_id=str(job_id) if job_id else "",
        object_label=sku,
    )
