"""The certificate of a deletion: what was erased, what was kept, and how that can be checked.

Its SHA-256 shows that a copy is whole. Its seal, an HMAC under one of this installation's
peppers, shows that the installation made it; whoever holds the pepper could make another, so it
proves nothing against the operator. The digests of ledger and trail tie both to it: a row that
was changed, added or lost since is noticed. They don't show that a backup holds nothing.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.utils import timezone

from portal.core.actors import Context
from portal.core.crypto import Peppers
from portal.core.database_roles import database_roles
from portal.core.env import env
from portal.core.ids import uuid7
from portal.core.tenancy import role_scope
from portal.core.tenancy.snapshots import tenant_snapshot
from tenants.closing import registry
from tenants.models import (
    ClosureStep,
    Tenant,
    TenantCertificate,
    TenantClosure,
    TenantDataKey,
    TenantExport,
)

FORMAT: Final = "freehold.certificate-of-deletion/1"
# No API key's secret begins like this, so no seal is ever a key's digest.
_DOMAIN: Final = b"freehold certificate v1\x00"
_FETCH_ROWS: Final = 2000

_LEDGER_ROWS: Final = """
SELECT to_jsonb(l)::text FROM (
    SELECT id, job_id, api_key_id, user_id, model_id, sku, prompt_tokens, completion_tokens, cost,
           currency, measure, admitted_at, recorded_at
      FROM tenants_ledgerentry WHERE tenant_id = %(tenant)s ORDER BY recorded_at, id) l
"""
_LEDGER_SUMS: Final = """
SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)
  FROM tenants_ledgerentry WHERE tenant_id = %(tenant)s
"""
_COSTS: Final = """
SELECT currency, sum(cost) FROM tenants_ledgerentry WHERE tenant_id = %(tenant)s
 GROUP BY currency ORDER BY currency
"""

# Nothing can be committed any more by transactions below the snapshot's oldest: so far the trail
# is final. The time is for a database that was restored where transaction ids began anew.
_BOUNDARY: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, clock_timestamp()"
_AUDIT: Final = """
  FROM audit_event WHERE tenant_id = %(tenant)s AND xid < %(xid)s::xid8
   AND recorded_at <= %(until)s
"""
_AUDIT_ROWS: Final = f"""
SELECT to_jsonb(e)::text FROM (
    SELECT id, recorded_at, category, action, outcome, reason, actor_type, actor_id, actor_label,
           on_behalf_of, api_key_id, auth_method, address, request_id, client_request_id,
           object_type, object_id, object_label, intent_id, occurred_at
      {_AUDIT} ORDER BY recorded_at, id) e
"""
_AUDIT_ENDS: Final = f"""
SELECT (SELECT count(*) {_AUDIT}), (SELECT id {_AUDIT} ORDER BY recorded_at, id LIMIT 1),
       (SELECT id {_AUDIT} ORDER BY recorded_at DESC, id DESC LIMIT 1)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a tenant's records is kept, as the certificate tells it."""

    ledger: dict[str, Any]
    audit: dict[str, Any]


def kept_records(context: Context, *, boundary: tuple[str, str] | None = None) -> Kept:
    """Counts, sums and digests of the tenant's ledger and trail.

    Args:
        boundary: transaction id and time (ISO 8601) up to which the trail counts, of a certificate
            that is checked; else up to where it is final at this moment.
    """
    with tenant_snapshot(context):
        ledger = _ledger({"tenant": context.tenant_id})
        with role_scope(context, database_roles().audit_reader):
            xid, until = boundary or _boundary()
            audit = _trail({"tenant": context.tenant_id, "xid": xid, "until": until})
    return Kept(ledger, {**audit, "below_transaction": xid, "until": until})


def _boundary() -> tuple[str, str]:
    xid, until = _row(_BOUNDARY, {})
    return xid, until.isoformat()


def _ledger(of: dict[str, Any]) -> dict[str, Any]:
    entries, prompt, completion = _row(_LEDGER_SUMS, of)
    with connection.cursor() as cursor:
        cursor.execute(_COSTS, of)
        costs = {currency: int(cost) for currency, cost in cursor.fetchall()}
    return {
        "entries": entries,
        "prompt_tokens": int(prompt),
        "completion_tokens": int(completion),
        "cost_nano": costs,
        "sha256": _digest(_LEDGER_ROWS, of),
    }


def _trail(of: dict[str, Any]) -> dict[str, Any]:
    events, first, last = _row(_AUDIT_ENDS, of)
    return {
        "events": events,
        "first": _text(first),
        "last": _text(last),
        "sha256": _digest(_AUDIT_ROWS, of),
    }


def _row(query: str, of: dict[str, Any]) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query, of)
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def _digest(query: str, of: dict[str, Any]) -> str:
    """SHA-256 (hex) over the rows as JSON lines, from a cursor on the server."""
    digest = hashlib.sha256()
    with connection.chunked_cursor() as cursor:
        cursor.execute(query, of)
        while rows := cursor.fetchmany(_FETCH_ROWS):
            digest.update("".join(f"{line}\n" for (line,) in rows).encode())
    return digest.hexdigest()


def issue(tenant: Tenant, closure: TenantClosure, kept: Kept) -> TenantCertificate:
    """Writes a tenant's certificate, in the open scope; its data keys must still be there."""
    certificate_id, now = uuid7(), timezone.now()
    document = canonical(_document(certificate_id, tenant, closure, kept, now)).decode()
    pepper, seal = _seal(document.encode())
    return TenantCertificate.objects.create(
        id=certificate_id,
        tenant=tenant,
        closure=closure,
        document=document,
        sha256=hashlib.sha256(document.encode()).hexdigest(),
        pepper=pepper,
        seal=seal.hex(),
        issued_at=now,
    )


def canonical(document: Any) -> bytes:
    """The one text of a document: names sorted, no blanks, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


@cache
def _peppers() -> Peppers:
    return Peppers.parse(env().api_key_peppers.get_secret_value())


def _seal(document: bytes, pepper: int | None = None) -> tuple[int, bytes]:
    return _peppers().digest(_DOMAIN + document, pepper)


def seal_matches(document: bytes, pepper: int, seal: bytes) -> bool:
    """Whether this installation sealed the document; False if the pepper is not held."""
    return _peppers().matches(_DOMAIN + document, pepper, seal)


def exported(certificate: TenantCertificate) -> bytes:
    """The certificate as a file: the document, and beside it what it is checked by."""
    return canonical(
        {
            "certificate": json.loads(certificate.document),
            "sha256": certificate.sha256,
            "seal": {"pepper": certificate.pepper, "hmac_sha256": certificate.seal},
        }
    )


def _document(
    certificate_id: UUID, tenant: Tenant, closure: TenantClosure, kept: Kept, now: datetime
) -> dict[str, Any]:
    tables = registry.kept()
    return {
        "format": FORMAT,
        "id": str(certificate_id),
        "issued_at": _text(now),
        "tenant": {
            "id": str(tenant.pk),
            "name": tenant.name,
            "slug": tenant.slug,
            "created_at": _text(tenant.created_at),
        },
        "decision": {
            "closure_id": str(closure.pk),
            "by": closure.asked_by,
            "by_id": _text(closure.asked_by_id),
            "at": _text(closure.asked_at),
            "reason": closure.reason,
            "grace_until": _text(closure.delete_after),
        },
        "deletion": {
            "generations_settled_at": _text(closure.settled_at),
            "began_at": _text(closure.deletion_began_at),
            "ended_at": _text(closure.ended_at),
            "erased": _erased(closure),
            "data_keys": _data_keys(tenant),
        },
        "kept": {
            "ledger": {**kept.ledger, "why": tables["tenants_ledgerentry"]},
            "audit": {**kept.audit, "why": tables["audit_event"]},
            "tables": dict(tables),
        },
        "exports": _exports(tenant),
    }


def _erased(closure: TenantClosure) -> list[dict[str, Any]]:
    steps = ClosureStep.objects.filter(closure=closure)
    return [{"what": s.name, "count": s.erased, "finished_at": _text(s.finished_at)} for s in steps]


def _data_keys(tenant: Tenant) -> list[dict[str, Any]]:
    """What names the destroyed keys without telling them: digests of the wrapped keys."""
    return [
        {
            "version": key.version,
            "created_at": _text(key.created_at),
            "sha256_of_wrapped": hashlib.sha256(bytes(key.wrapped)).hexdigest(),
        }
        for key in TenantDataKey.objects.filter(tenant=tenant).order_by("version")
    ]


def _exports(tenant: Tenant) -> list[dict[str, Any]]:
    made = TenantExport.objects.filter(tenant=tenant, ready_at__isnull=False).order_by("ready_at")
    return [
        {
            "id": str(e.pk),
            "asked_by": e.asked_by,
            "ready_at": _text(e.ready_at),
            "bytes": e.size,
            "sha256": e.sha256,
        }
        for e in made
    ]


def _text(value: object) -> str | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of a certificate."""

    check: str
    passed: bool


def check_file(content: bytes) -> tuple[dict[str, Any] | None, list[Finding]]:
    """What a certificate's file shows by itself: the document, and whether digest and seal fit.

    The document is None where the file is no certificate.
    """
    try:
        file = json.loads(content)
        document, sha256 = file["certificate"], str(file["sha256"])
        pepper, seal = int(file["seal"]["pepper"]), bytes.fromhex(file["seal"]["hmac_sha256"])
        known = document["format"] == FORMAT
        text = canonical(document)
    except (ValueError, KeyError, TypeError):
        return None, [Finding("the file is a certificate", passed=False)]
    digest = hashlib.sha256(text).hexdigest()
    return document, [
        Finding("the file is a certificate", known),
        Finding("its SHA-256 is that of its text", hmac.compare_digest(digest, sha256.lower())),
        Finding("this installation sealed it", seal_matches(text, pepper, seal)),
    ]
