"""One row in every table of tenants' rows, so that no check passes for want of something to see.

Several of these tables are written by the gateway or the sealer alone; a superuser's connection
stands in for them here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from portal.core.ids import uuid7
from tests.factories import Organisation, unique

Row = dict[str, Any]

NO_LEDGER = datetime(1999, 1, 1, tzinfo=UTC)
"""Before any charge: a bucket here disturbs no comparison of rollups with the ledger."""


@dataclass(frozen=True, slots=True)
class Populated:
    """A tenant and, by table, the key column and key of one row of its own."""

    organisation: Organisation
    keys: dict[str, tuple[str, UUID]]

    @property
    def id(self) -> UUID:
        return self.organisation.id


def insert(superuser: psycopg.Connection, table: str, row: Row) -> None:
    """Inserts one row, bound by no policy."""
    superuser.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() for _ in row),
        ),
        list(row.values()),
    )


def new_row(table: str, organisation: Organisation, references: dict[str, UUID]) -> Row:
    """A valid row of a table, whose references are the given ids by column name."""
    tenant, user = organisation.id, organisation.developer.user.id
    now = datetime.now(UTC)
    rows: dict[str, Row] = {
        "tenants_serviceaccount": {
            "id": user, "name": "seen", "description": "", "responsible_id": user,
            "created_at": now,
        },
        "tenants_apikey": {
            "id": uuid7(), "user_id": user, "name": "seen", "kind": "standard",
            "public_id": uuid7().hex[-16:], "secret_hmac": b"h", "pepper_version": 1,
            "scopes": ["inference"], "revoked_reason": "", "created_at": now,
        },
        "tenants_apikeyuse": {
            "api_key_id": references.get("api_key_id"), "generation": 1, "last_used_at": now,
        },
        "tenants_quota": {
            "id": uuid7(), "api_key_id": references.get("api_key_id"), "created_at": now,
        },
        "tenants_quotadefault": {
            "id": uuid7(), "applies_to": "user", "created_at": now,
        },
        "tenants_quotawindow": {
            "quota_id": references.get("quota_id"),
            "minute_start": now, "day_start": now, "month_start": now,
            **_zeros(),
        },
        "tenants_quotawarning": {
            "id": uuid7(), "quota_id": references.get("quota_id"), "limit_name": "tokens_day",
            "window_start": now, "level": 50, "maximum": 2, "taken": 1, "warned_at": now,
        },
        "tenants_tenantdatakey": {
            "id": uuid7(), "version": 0, "wrapped": b"w", "created_at": now,
        },
        "tenants_ledgerentry": {
            "id": uuid7(), "job_id": uuid7(), "model_id": uuid7(), "sku": "m@1",
            "prompt_tokens": 1, "completion_tokens": 1, "cost": 1, "currency": "USD",
            "measure": "measured", "admitted_at": now, "recorded_at": now,
        },
        "tenants_usagebucket": {
            "id": uuid7(), "starts_at": NO_LEDGER, "user_id": user, "api_key_id": uuid7(),
            "model_id": uuid7(), "sku": "m@1", "currency": "USD", "requests": 1,
            "prompt_tokens": 1, "completion_tokens": 1, "cost": 1,
        },
        "tenants_tenantclosure": {
            "id": uuid7(), "state": "reopened", "tenant_was": "active", "reason": "seen",
            "asked_by": "seen", "asked_at": now, "delete_after": now,
        },
        "tenants_closurestep": {
            "id": uuid7(), "closure_id": references.get("closure_id"), "name": "seen",
            "erased": 0, "began_at": now,
        },
        "tenants_tenantcertificate": {
            "id": uuid7(), "closure_id": references.get("closure_id"), "document": "{}",
            "sha256": "0", "pepper": 1, "seal": "0", "issued_at": now,
        },
        "tenants_tenantexport": {
            "id": uuid7(), "state": "deleted", "asked_by": "seen", "asked_at": now, "attempts": 1,
            "part": "", "rows_done": 0, "sha256": "",
        },
        "inference_job": {
            "id": uuid7(), "user_id": user,
            "deployment_id": references.get("deployment_id") or uuid7(),
            "model_id": references.get("model_id") or uuid7(),
            "api_key_id": references.get("api_key_id"), "sku": "m@1", "kind": "chat", "state": 2,
            "stream": False, "parameters": "{}", "request_id": unique("req"), "gateway": "g",
            "quota_ids": [], "prompt_tokens": 1, "reserved_tokens": 2, "reserved_cost": 0,
            "prompt_price": 0, "completion_price": 0, "currency": "USD", "start_tag": 0,
            "attempts": 1, "fence": 1, "worker": "w", "admitted_at": now, "deadline": now,
            "finished_at": now, "watermark": 1, "finish_reason": "stop", "error_code": "",
            "error_message": "",
        },
        "inference_jobpayload": {
            "job_id": references.get("job_id"), "data_key_version": 1, "prompt": b"p",
            "answer": b"a", "result_seconds": 60,
        },
        "inference_idempotencykey": {
            "api_key_id": references.get("api_key_id"), "key": "seen",
            "job_id": references.get("job_id"), "pepper_version": 1, "body_hmac": b"h",
            # Later than any test: a portal that runs meanwhile drops what has expired.
            "expires_at": now + timedelta(days=1),
        },
        "inference_webhooksecret": {
            "id": uuid7(), "generation": 1, "data_key_version": 1, "sealed": b"s",
            "created_at": now,
        },
        "inference_webhookdelivery": {
            "id": uuid7(), "job_id": references.get("job_id"), "origin": "https://hooks.test",
            "data_key_version": 1, "sealed_url": b"u", "state": 2, "attempts": 1, "tries": 1,
            "last_error": "", "created_at": now, "finished_at": now,
        },
        "inference_webhookattempt": {
            "id": uuid7(), "delivery_id": references.get("delivery_id"), "number": 1,
            "sent_at": now, "milliseconds": 1, "status": 204, "error": "",
        },
        "inference_fairshare": {"deployment_id": uuid7(), "virtual_time": 0},
        "inference_file": {
            "id": uuid7(), "api_key_id": references.get("api_key_id"), "user_id": user,
            "filename": "seen.jsonl", "purpose": "batch", "state": 1, "size": 1, "chunks": 1,
            "data_key_version": 1, "created_at": now,
        },
        "inference_filechunk": {
            "file_id": references.get("file_id"), "number": 0, "content": b"c",
        },
        "inference_batch": {
            "id": uuid7(), "api_key_id": references.get("api_key_id"), "user_id": user,
            "endpoint": "/v1/chat/completions", "model": "m",
            "input_file_id": references.get("input_file_id"), "state": 4, "errors": "[]",
            "total": 1, "completed": 1, "failed": 0, "prompt_tokens": 1, "completion_tokens": 1,
            "lines_read": 1, "bytes_read": 1, "fed_through": 1, "waiting_for": "", "wake_at": now,
            "created_at": now, "expires_at": now, "ended_at": now,
        },
        "inference_batchline": {
            "batch_id": references.get("batch_id"), "number": 1, "custom_id": b"c",
            "custom_id_hmac": b"h", "start": 0, "length": 1, "state": 2,
        },
        "knowledge_connection": {
            "id": uuid7(), "name": "seen", "base_url": "https://dify.test",
            "workspace_id": uuid7(), "workspace_name": "w", "data_key_version": 1, "sealed": b"s",
            "drift_policy": "ask", "organisation": "", "licence_reference": "seen",
            "licence_confirmed_by": "seen", "licence_confirmed_at": now, "version": "1.16.0",
            "capabilities": '{"high_quality": false, "gateway_provider": false, "workspaces": 1, '
            '"licensed": false}',
            "health": "healthy", "problem_code": "", "problem": "", "since": now,
            # Later than any test: a portal that runs meanwhile looks at what is due.
            "checked_at": now, "check_at": now + timedelta(days=1), "created_at": now,
        },
        "knowledge_sync": {
            "id": uuid7(), "connection_id": references.get("connection_id"), "paused": True,
            "due_at": now, "fence": 0, "observe_at": now, "failures": 0, "error_code": "",
            "error": "",
        },
        "knowledge_remoteobject": {
            "id": uuid7(), "connection_id": references.get("connection_id"), "kind": "document",
            "local_id": uuid7(), "label": "seen.txt", "remote_id": "", "batch": "",
            "sent": "{}", "shown": "{}", "seen": "{}", "asking": "[]", "gone": False,
            "state": "waiting", "decision": "", "attempts": 0, "error_code": "", "error": "",
        },
        "knowledge_deletionreceipt": {
            "id": uuid7(), "connection_id": uuid7(), "connection_name": "seen",
            "kind": "document", "label": "seen.txt", "remote_id": "seen", "contained": "[]",
            "deleted_at": now,
        },
        "inference_routeoverride": {
            "id": uuid7(), "name": "seen", "route_id": references.get("route_id"),
            "created_at": now,
        },
        "knowledge_knowledgebase": {
            "id": uuid7(), "name": uuid7().hex, "description": "", "method": "full_text",
            "top_k": 5, "embedding_model": "", "rerank_model": "", "prompt_template": "t",
            "api_key_id": references.get("api_key_id"), "created_at": now,
        },
        "knowledge_document": {
            "id": uuid7(), "knowledge_base_id": references.get("knowledge_base_id"),
            "name": "seen.txt", "source": "text", "enabled": True, "metadata": "{}", "version": 1,
            "latest": 1, "passages": 1, "embedded_by": "", "state": 2, "parts": 1,
            "parts_done": 0, "attempts": 0, "maker": "", "waiting_for": "", "error": "",
            "created_at": now, "changed_at": now,
        },
        "knowledge_documentversion": {
            "id": uuid7(), "document_id": references.get("document_id"), "number": 1,
            "digest": "0", "size": 4, "kind": "txt", "text": "seen", "created_at": now,
        },
        "knowledge_chunk": {
            "id": uuid7(), "knowledge_base_id": references.get("knowledge_base_id"),
            "document_id": references.get("document_id"), "version": 1, "position": 0,
            "text": "seen", "words": "seen",
        },
        "knowledge_chunkvector": {
            "chunk_id": references.get("chunk_id"), "knowledge_base_id": uuid7(),
            "document_id": uuid7(), "version": 1, "embedding": "[1]",
        },
        "knowledge_app": {
            "id": uuid7(), "slug": "seen", "name": "seen", "description": "", "mode": "chat",
            "latest": 1, "published": 1, "allowed_keys": [], "keep_days": 30, "created_at": now,
        },
        "knowledge_appversion": {
            "id": uuid7(), "app_id": references.get("app_id"), "number": 1, "note": "seen",
            "spec": '{"model": "m", "prompt": "{{query}}"}', "created_at": now,
        },
        "knowledge_appdeployment": {
            "id": uuid7(), "app_id": references.get("app_id"),
            "connection_id": references.get("connection_id"), "key_id": "",
            "data_key_version": 0, "created_at": now,
        },
        "knowledge_portalindify": {
            "id": uuid7(), "connection_id": references.get("connection_id"),
            "api_key_id": references.get("api_key_id"), "generation": 1, "data_key_version": 1,
            "sealed": b"seen", "url": "http://seen", "registered": "{}", "source_id": "",
            "datasets": "{}",
        },
        "knowledge_conversation": {
            "id": uuid7(), "app_id": references.get("app_id"),
            "api_key_id": references.get("api_key_id"), "end_user": "", "remote_id": "",
            # Later than any test: a portal that runs meanwhile drops what has expired.
            "created_at": now, "touched_at": now, "expires_at": now + timedelta(days=1),
        },
        "knowledge_appmessage": {
            "id": uuid7(), "conversation_id": references.get("conversation_id"), "version": 1,
            "state": 1, "data_key_version": 1, "sealed": b"s", "remote_id": "",
            "finish_reason": "stop", "error_code": "", "prompt_tokens": 1,
            "completion_tokens": 1, "milliseconds": 1, "rating": 0, "created_at": now,
        },
        "knowledge_appusage": {
            "id": uuid7(), "app_id": references.get("app_id"), "day": now.date(), "calls": 1,
            "failures": 0, "prompt_tokens": 1, "completion_tokens": 1, "likes": 0, "dislikes": 0,
        },
        "knowledge_documentsource": {
            "id": uuid7(), "knowledge_base_id": references.get("knowledge_base_id"),
            "name": "seen", "kind": "folder", "settings": '{"path": "", "include": ""}',
            "on_removed": "delete", "schedule": "", "paused": False, "fence": 0,
            "full_wanted": False, "empty_allowed": False, "problem": "", "created_at": now,
        },
        "knowledge_sourcerun": {
            "id": uuid7(), "source_id": references.get("source_id"), "state": 1, "full": True,
            "attempts": 0, "added": 1, "changed": 0, "removed": 0, "unchanged": 0, "refused": 0,
            "waiting": 0, "error": "", "started_at": now, "ended_at": now,
        },
        "knowledge_sourceitem": {
            "id": uuid7(), "source_id": references.get("source_id"),
            "document_id": references.get("document_id"), "key": "seen", "stamp": "1",
            "problem": "", "gone": False, "seen_run": uuid7(),
        },
        "knowledge_trigger": {
            "id": uuid7(), "app_id": references.get("app_id"),
            "api_key_id": references.get("api_key_id"), "name": unique("seen"), "kind": "event",
            "enabled": True, "stream": "seen", "rules": "[]", "threshold": 1.0,
            "cooldown_minutes": 0, "schedule": "", "inputs": "{}", "receiver": "",
            "data_key_version": 0, "keep_days": 30, "created_at": now,
        },
        "knowledge_evaluation": {
            "id": uuid7(), "app_id": references.get("app_id"), "app_version": 1,
            "scenario": "seen", "model": "m@1", "cases": 1, "scores": "{}", "failures": "[]",
            "seconds": 1.0, "created_at": now,
        },
        "knowledge_streamevent": {
            "id": uuid7(), "stream": "seen", "source_id": "seen", "subject": b"s", "at": now,
            "data_key_version": 1, "sealed": b"s", "size": 1, "received_at": now,
            "expires_at": now + timedelta(days=1),
        },
        "knowledge_triggerrun": {
            "id": uuid7(), "trigger_id": references.get("trigger_id"), "cause": "seen",
            "subject": b"", "app_version": 1, "state": 2, "score": 1.0, "alert": False,
            "waiting_for": "", "error": "", "data_key_version": 1, "created_at": now,
            "finished_at": now, "expires_at": now + timedelta(days=1),
        },
        "audit_event": {
            "id": uuid7(), "category": "intent", "action": "test.seen", "outcome": "success",
            "actor_type": "system", "recorded_at": now,
        },
        "audit_body": {
            "event_id": references.get("event_id"), "detail": '{"a": 1}', "recorded_at": now,
        },
        "audit_leaf": {
            "event_id": references.get("event_id"), "recorded_at": now, "seq": 1,
            "header": b"h", "leaf": b"l",
        },
    }  # fmt: skip
    return {"tenant_id": tenant, **rows[table]}


def _zeros() -> Row:
    moved = ("used", "held")
    tokens = {f"tokens_{w}_{m}": 0 for w in ("minute", "day", "month", "total") for m in moved}
    cost = {f"cost_{w}_{m}": 0 for w in ("minute", "day", "month", "total") for m in moved}
    requests = {f"requests_{w}_used": 0 for w in ("minute", "day", "month", "total")}
    return {**tokens, **cost, **requests, "active": 0}


# Table -> its key column and what it refers to: column -> table. In order of insertion.
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "tenants_serviceaccount": ("id", {}),
    "tenants_apikey": ("id", {}),
    "tenants_apikeyuse": ("api_key_id", {"api_key_id": "tenants_apikey"}),
    "tenants_quota": ("id", {"api_key_id": "tenants_apikey"}),
    "tenants_quotadefault": ("id", {}),
    "tenants_quotawindow": ("quota_id", {"quota_id": "tenants_quota"}),
    "tenants_quotawarning": ("id", {"quota_id": "tenants_quota"}),
    "tenants_tenantdatakey": ("id", {}),
    "tenants_ledgerentry": ("id", {}),
    "tenants_usagebucket": ("id", {}),
    "tenants_tenantclosure": ("id", {}),
    "tenants_closurestep": ("id", {"closure_id": "tenants_tenantclosure"}),
    "tenants_tenantcertificate": ("id", {"closure_id": "tenants_tenantclosure"}),
    "tenants_tenantexport": ("id", {}),
    "inference_job": ("id", {"api_key_id": "tenants_apikey"}),
    "inference_jobpayload": ("job_id", {"job_id": "inference_job"}),
    "inference_idempotencykey": (
        "job_id",
        {"api_key_id": "tenants_apikey", "job_id": "inference_job"},
    ),
    "inference_webhooksecret": ("id", {}),
    "inference_webhookdelivery": ("id", {"job_id": "inference_job"}),
    "inference_webhookattempt": ("id", {"delivery_id": "inference_webhookdelivery"}),
    "inference_fairshare": ("deployment_id", {}),
    "inference_file": ("id", {"api_key_id": "tenants_apikey"}),
    "inference_filechunk": ("file_id", {"file_id": "inference_file"}),
    "inference_batch": (
        "id",
        {"api_key_id": "tenants_apikey", "input_file_id": "inference_file"},
    ),
    "inference_batchline": ("batch_id", {"batch_id": "inference_batch"}),
    "inference_routeoverride": ("id", {}),
    "knowledge_connection": ("id", {}),
    "knowledge_sync": ("id", {"connection_id": "knowledge_connection"}),
    "knowledge_remoteobject": ("id", {"connection_id": "knowledge_connection"}),
    "knowledge_deletionreceipt": ("id", {}),
    "knowledge_knowledgebase": ("id", {"api_key_id": "tenants_apikey"}),
    "knowledge_document": ("id", {"knowledge_base_id": "knowledge_knowledgebase"}),
    "knowledge_documentversion": ("id", {"document_id": "knowledge_document"}),
    "knowledge_chunk": (
        "id",
        {"knowledge_base_id": "knowledge_knowledgebase", "document_id": "knowledge_document"},
    ),
    "knowledge_chunkvector": ("chunk_id", {"chunk_id": "knowledge_chunk"}),
    "knowledge_app": ("id", {}),
    "knowledge_appversion": ("id", {"app_id": "knowledge_app"}),
    "knowledge_appdeployment": (
        "id",
        {"app_id": "knowledge_app", "connection_id": "knowledge_connection"},
    ),
    "knowledge_portalindify": (
        "id",
        {"connection_id": "knowledge_connection", "api_key_id": "tenants_apikey"},
    ),
    "knowledge_conversation": ("id", {"app_id": "knowledge_app", "api_key_id": "tenants_apikey"}),
    "knowledge_appmessage": ("id", {"conversation_id": "knowledge_conversation"}),
    "knowledge_appusage": ("id", {"app_id": "knowledge_app"}),
    "knowledge_documentsource": ("id", {"knowledge_base_id": "knowledge_knowledgebase"}),
    "knowledge_sourcerun": ("id", {"source_id": "knowledge_documentsource"}),
    "knowledge_sourceitem": (
        "id",
        {"source_id": "knowledge_documentsource", "document_id": "knowledge_document"},
    ),
    "knowledge_trigger": ("id", {"app_id": "knowledge_app", "api_key_id": "tenants_apikey"}),
    "knowledge_streamevent": ("id", {}),
    "knowledge_evaluation": ("id", {"app_id": "knowledge_app"}),
    "knowledge_triggerrun": ("id", {"trigger_id": "knowledge_trigger"}),
    "audit_event": ("id", {}),
    "audit_body": ("event_id", {"event_id": "audit_event"}),
    "audit_leaf": ("event_id", {"event_id": "audit_event"}),
}


def populate(
    superuser: psycopg.Connection, organisation: Organisation, served: dict[str, UUID]
) -> Populated:
    """Gives an organisation one row in every table of tenants' rows.

    Args:
        served: ``deployment_id`` and ``model_id`` of what its job ran on, and a ``route_id``.
    """
    membership = superuser.execute(
        "SELECT id FROM tenants_membership WHERE user_id = %s", [organisation.viewer.user.id]
    ).fetchone()
    assert membership is not None
    keys: dict[str, tuple[str, UUID]] = {
        "tenants_tenant": ("id", organisation.id),
        "tenants_membership": ("id", membership[0]),
    }
    for table, (key, references) in TABLES.items():
        found = served | {column: keys[other][1] for column, other in references.items()}
        row = new_row(table, organisation, found)
        insert(superuser, table, row)
        keys[table] = (key, row[key])
    return Populated(organisation, keys)
