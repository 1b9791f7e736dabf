"""What becomes of a tenant's knowledge when the tenant is closed: it is exported and erased."""

from typing import Final

from knowledge.sync import closing as in_dify
from tenants.closing.registry import erase_rows, erase_with, export_part, keep_rows

# Erased from the last to the first.
_ERASED: Final = (
    "knowledge_connection",
    "knowledge_sync",
    "knowledge_remoteobject",
    "knowledge_knowledgebase",
    "knowledge_document",
    "knowledge_documentversion",
    "knowledge_chunk",
    "knowledge_chunkvector",
    "knowledge_app",
    "knowledge_appversion",
    "knowledge_appdeployment",
    "knowledge_portalindify",
    "knowledge_appusage",
    "knowledge_conversation",
    "knowledge_appmessage",
    "knowledge_documentsource",
    "knowledge_sourcerun",
    "knowledge_sourceitem",
    "knowledge_evaluation",
    "knowledge_trigger",
    "knowledge_streamevent",
    "knowledge_triggerrun",
)

_BASES: Final = """
SELECT id, name, description, method, top_k, score_threshold, embedding_model, rerank_model,
       prompt_template, created_by_id AS created_by, created_at
  FROM knowledge_knowledgebase WHERE tenant_id = %(tenant)s ORDER BY id
"""
_DOCUMENTS: Final = """
SELECT d.id, d.knowledge_base_id, d.name, d.source, d.enabled, d.archived_at, d.metadata,
       v.number AS version, v.digest AS sha256, v.size, v.kind, v.text, v.created_at
  FROM knowledge_document d
  JOIN knowledge_documentversion v ON v.tenant_id = d.tenant_id AND v.document_id = d.id
 WHERE d.tenant_id = %(tenant)s ORDER BY d.id, v.number
"""
_APPS: Final = """
SELECT a.id, a.slug, a.name, a.description, a.mode, a.published, v.number AS version, v.note,
       v.spec, v.created_by_id AS created_by, v.created_at
  FROM knowledge_app a
  JOIN knowledge_appversion v ON v.tenant_id = a.tenant_id AND v.app_id = a.id
 WHERE a.tenant_id = %(tenant)s ORDER BY a.id, v.number
"""
_SOURCES: Final = """
SELECT id, knowledge_base_id, name, kind, settings, on_removed, schedule, paused, last_run_at,
       problem, created_by_id AS created_by, created_at
  FROM knowledge_documentsource WHERE tenant_id = %(tenant)s ORDER BY id
"""


def register() -> None:
    """Says it, once, when the app starts."""
    for table in _ERASED:
        erase_rows(table)
    keep_rows("knowledge_deletionreceipt", why="proof of what was deleted in Dify, and when")
    # The keys that open Dify are needed for it, so it comes before all of them.
    erase_with(in_dify.NAME, in_dify.erase_in_dify)
    export_part("knowledge_bases.jsonl", _BASES)
    export_part("documents.jsonl", _DOCUMENTS)
    export_part("document_sources.jsonl", _SOURCES)
    export_part("apps.jsonl", _APPS)
