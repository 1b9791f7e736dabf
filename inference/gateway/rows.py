"""What a call leaves in the database at admission: its audit event, and its job if it has one."""

import base64
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from audit.models import Outcome
from inference.gateway.admission import Admitted, Allowed, Refused
from inference.gateway.calls import Part, Pending
from inference.gateway.keys import KeyFacts
from inference.payloads import fingerprint_text, pack_prompt
from portal.core.actors import NIL_TENANT
from portal.core.crypto import Cipher
from portal.core.ids import uuid7

_DENIED: Final = frozenset({401, 403, 404, 429})


class Row(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """One event and, from ``job_id`` on, the job that it tells of; a row of ``store.WRITE``.

    ``prompt`` is encrypted and in base64, ``reserved_cost`` in nano-units of currency, prices in
    micro-units a million tokens.
    """

    event_id: UUID
    tenant_id: UUID
    action: str
    outcome: str
    occurred_at: datetime
    request_id: str
    reason: str = ""
    api_key_id: UUID | None = None
    key_name: str = ""
    address: str | None = None
    client_request_id: str | None = None
    detail: dict[str, Any] | None = None

    job_id: UUID | None = None
    deployment_id: UUID | None = None
    model_id: UUID | None = None
    user_id: UUID | None = None
    sku: str = ""
    stream: bool = False
    parameters: dict[str, Any] | None = None
    quota_ids: tuple[UUID, ...] = ()
    prompt_tokens: int = 0
    reserved_tokens: int = 0
    reserved_cost: int = 0
    prompt_price: int = 0
    completion_price: int = 0
    currency: str = ""
    start_tag: int = 0
    data_key_version: int = 0
    prompt: str = ""
    fallbacks: list[dict[str, Any]] | None = None


ROW_COLUMNS: Final = """
    event_id uuid, tenant_id uuid, action text, outcome text, occurred_at timestamptz,
    request_id text, reason text, api_key_id uuid, key_name text, address inet,
    client_request_id text, detail jsonb,
    job_id uuid, deployment_id uuid, model_id uuid, user_id uuid, sku text, stream boolean,
    parameters jsonb, quota_ids uuid[], prompt_tokens integer, reserved_tokens bigint,
    reserved_cost bigint, prompt_price bigint, completion_price bigint, currency text,
    start_tag bigint, data_key_version integer, prompt text
"""
"""``Row`` as ``json_to_recordset`` reads it; what has its default is not sent and comes as NULL."""


def admitted_row(pending: Pending, verdict: Admitted, cipher: Cipher) -> Row:
    """The row of an admitted call."""
    generation, ask, key, origin = pending.generation, pending.call.ask, verdict.key, pending.origin
    assert generation is not None, "only generations are admitted"
    assert ask is not None
    served, prompt = generation.served, generation.prompt
    sealed = cipher.encrypt(pack_prompt(prompt), row_id=verdict.job_id)
    return Row(
        event_id=uuid7(),
        tenant_id=key.tenant_id,
        action=pending.action,
        outcome=Outcome.REQUESTED.value,
        occurred_at=pending.arrived_at,
        request_id=origin.request_id,
        api_key_id=key.id,
        key_name=key.name,
        address=origin.address,
        client_request_id=origin.client_request_id,
        detail={
            "stream": generation.stream,
            "parameters": generation.parameters,
            "prompt_tokens": ask.prompt_tokens,
            "max_tokens": generation.max_tokens,
            "prompt_hmac": cipher.fingerprint(fingerprint_text(prompt)).hex(),
            "key_generation": key.generation,
        },
        job_id=verdict.job_id,
        deployment_id=served.deployment_id,
        model_id=served.model_id,
        user_id=key.user_id,
        sku=served.sku,
        stream=generation.stream,
        parameters=generation.parameters,
        quota_ids=verdict.quota_ids,
        prompt_tokens=ask.prompt_tokens,
        reserved_tokens=ask.tokens,
        reserved_cost=ask.cost,
        prompt_price=ask.prompt_price,
        completion_price=ask.completion_price,
        currency=served.currency,
        start_tag=verdict.start_tag,
        data_key_version=key.data_key_version,
        prompt=base64.b64encode(sealed).decode(),
        fallbacks=fallback_rows(pending, verdict, cipher) if verdict.fallbacks else None,
    )


def fallback_rows(pending: Pending, verdict: Admitted, cipher: Cipher) -> list[dict[str, Any]]:
    """Where a job may go on, as its payload keeps it; see ``inference.fallback``.

    Each keeps the prompt once more, unless all of them read the same token ids.
    """
    options = pending.options or {}
    assert verdict.ask is not None, "a call that has fallbacks had a choice"
    encoders = {
        id(options[ask.deployment_id].served.encoder) for ask in (verdict.ask, *verdict.fallbacks)
    }
    rows: list[dict[str, Any]] = []
    for ask in verdict.fallbacks:
        generation = options[ask.deployment_id]
        row = {
            "deployment_id": ask.deployment_id,
            "model_id": ask.model_id,
            "sku": generation.served.sku,
            "prompt_tokens": ask.prompt_tokens,
            "prompt_price": ask.prompt_price,
            "completion_price": ask.completion_price,
        }
        if len(encoders) > 1:
            sealed = cipher.encrypt(pack_prompt(generation.prompt), row_id=verdict.job_id)
            row["prompt"] = base64.b64encode(sealed).decode()
        rows.append(row)
    return rows


def allowed_rows(pending: Pending, verdict: Allowed) -> list[Row]:
    """The rows of a call that only needed a valid key: that it was asked, and answered."""
    key = verdict.key
    detail = {"key_generation": key.generation}
    rows = []
    if pending.part != Part.END:
        rows.append(_event(pending, key, Outcome.REQUESTED, detail=detail))
    if pending.part != Part.BEGINNING:
        rows.append(_event(pending, key, Outcome.SUCCESS, detail=pending.detail))
    return rows


def refused_row(pending: Pending, verdict: Refused) -> Row:
    """The row of a call that ends at admission."""
    error = verdict.error
    outcome = Outcome.DENIED if error.error_status in _DENIED else Outcome.FAILURE
    detail: dict[str, Any] = {"status": error.error_status}
    if error.param is not None:
        detail["param"] = error.param
    if pending.call.ask is not None:
        detail["model"] = pending.call.ask.model_name
    elif pending.call.choice is not None:
        detail["model"] = pending.call.choice.meaning.name
    if verdict.key is not None:
        detail["key_generation"] = verdict.key.generation
    return _event(pending, verdict.key, outcome, reason=error.error_code, detail=detail)


def _event(
    pending: Pending,
    key: KeyFacts | None,
    outcome: Outcome,
    *,
    reason: str = "",
    detail: dict[str, Any] | None = None,
) -> Row:
    return Row(
        event_id=uuid7(),
        tenant_id=key.tenant_id if key else NIL_TENANT,
        action=pending.action,
        outcome=outcome.value,
        occurred_at=pending.arrived_at,
        request_id=pending.origin.request_id,
        reason=reason,
        api_key_id=key.id if key else None,
        key_name=key.name if key else "",
        address=pending.origin.address,
        client_request_id=pending.origin.client_request_id,
        detail=detail,
    )
