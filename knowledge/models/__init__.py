from knowledge.models.bases import KnowledgeBase, Method
from knowledge.models.connections import Connection, DriftPolicy, Health
from knowledge.models.documents import (
    UNDER_WAY,
    Chunk,
    Document,
    DocumentState,
    DocumentVersion,
    Source,
)

__all__ = [
    "UNDER_WAY",
    "Chunk",
    "Connection",
    "Document",
    "DocumentState",
    "DocumentVersion",
    "DriftPolicy",
    "Health",
    "KnowledgeBase",
    "Method",
    "Source",
]
