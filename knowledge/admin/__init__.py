"""Admin pages of knowledge."""

from knowledge.admin.apps import AppAdmin
from knowledge.admin.bases import KnowledgeBaseAdmin
from knowledge.admin.connections import ConnectionAdmin
from knowledge.admin.documents import DocumentAdmin
from knowledge.admin.scenarios import EvaluationAdmin
from knowledge.admin.sources import DocumentSourceAdmin
from knowledge.admin.sync import DeletionReceiptAdmin, RemoteObjectAdmin
from knowledge.admin.triggers import TriggerAdmin

__all__ = [
    "AppAdmin",
    "ConnectionAdmin",
    "DeletionReceiptAdmin",
    "DocumentAdmin",
    "DocumentSourceAdmin",
    "EvaluationAdmin",
    "KnowledgeBaseAdmin",
    "RemoteObjectAdmin",
    "TriggerAdmin",
]
