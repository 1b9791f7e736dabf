"""What the tenants app erases, keeps and exports when a tenant is closed."""

from typing import Final
from uuid import UUID

from django.db import connection

from tenants.closing.files import erase_files
from tenants.closing.registry import erase_rows, erase_with, export_part, keep_rows

# Erased from the last to the first: a quota refers to its key.
_ERASED: Final = (
    "tenants_apikey",
    "tenants_apikeyuse",
    "tenants_quota",
    "tenants_quotawindow",
    "tenants_quotawarning",
    "tenants_quotadefault",
    "tenants_membership",
)
_KEPT: Final = {
    "tenants_ledgerentry": "what was charged must stay provable; it holds ids and no content",
    "tenants_usagebucket": "sums of the ledger, without which old bills can't be read",
    "audit_event": "who did what must stay provable; it is never deleted",
    "audit_body": "the details of those events; prompts and answers never enter them",
    "audit_leaf": "the seals of those events",
    "tenants_tenantclosure": "the decision to close, with its reason",
    "tenants_closurestep": "what each step erased",
    "tenants_tenantexport": "what was handed out, with its digest; the file itself is erased",
    "tenants_tenantcertificate": "the certificate itself",
}

_KEYS: Final = """
SELECT k.id, k.name, k.kind, k.public_id, k.scopes, k.allowed_models, k.allowed_networks,
       k.generation, k.expires_at, k.revoked_at, k.revoked_reason, k.created_at,
       u.email AS made_by
  FROM tenants_apikey k JOIN tenants_user u ON u.id = k.user_id
 WHERE k.tenant_id = %(tenant)s ORDER BY k.id
"""
# The account's row stays for the ledger, which names it by its id, and says nothing any more.
_UNNAME: Final = """
WITH gone AS (
    DELETE FROM tenants_serviceaccount WHERE tenant_id = %s AND id = ANY(ARRAY(
        SELECT id FROM tenants_serviceaccount WHERE tenant_id = %s LIMIT %s))
    RETURNING id)
UPDATE tenants_user u SET full_name = '', is_active = false FROM gone WHERE u.id = gone.id
"""
_MEMBERS: Final = """
SELECT m.id, m.user_id, u.email, u.full_name, m.role, m.created_at
  FROM tenants_membership m JOIN tenants_user u ON u.id = m.user_id
 WHERE m.tenant_id = %(tenant)s ORDER BY m.id
"""
_LEDGER: Final = """
SELECT id, job_id, api_key_id, user_id, model_id, sku, prompt_tokens, completion_tokens, cost,
       currency, measure, admitted_at, recorded_at
  FROM tenants_ledgerentry WHERE tenant_id = %(tenant)s ORDER BY recorded_at, id
"""
_AUDIT: Final = """
SELECT e.*, b.before, b.after, b.detail
  FROM audit_event e
  LEFT JOIN audit_body b ON b.event_id = e.id AND b.recorded_at = e.recorded_at
 WHERE e.tenant_id = %(tenant)s ORDER BY e.recorded_at, e.id
"""


def _erase_service_accounts(tenant_id: UUID, most: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_UNNAME, [tenant_id, tenant_id, most])
        return int(cursor.rowcount)


def register() -> None:
    """Says it, once, when the app starts."""
    erase_with("tenants_serviceaccount", _erase_service_accounts)
    for table in _ERASED:
        erase_rows(table)
    for table, why in _KEPT.items():
        keep_rows(table, why=why)
    erase_with("exports", erase_files)
    export_part("tenant.jsonl", "SELECT * FROM tenants_tenant WHERE id = %(tenant)s")
    export_part("members.jsonl", _MEMBERS)
    export_part(
        "service_accounts.jsonl",
        "SELECT * FROM tenants_serviceaccount WHERE tenant_id = %(tenant)s ORDER BY id",
    )
    export_part("keys.jsonl", _KEYS)
    export_part(
        "quotas.jsonl", "SELECT * FROM tenants_quota WHERE tenant_id = %(tenant)s ORDER BY id"
    )
    export_part(
        "quota_defaults.jsonl",
        "SELECT * FROM tenants_quotadefault WHERE tenant_id = %(tenant)s ORDER BY id",
    )
    export_part("ledger.jsonl", _LEDGER)
    export_part("audit.jsonl", _AUDIT, audit=True)
