from knowledge.models.apps import (
    App,
    AppMessage,
    AppMode,
    AppUsage,
    AppVersion,
    Conversation,
    MessageState,
)
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
    "App",
    "AppMessage",
    "AppMode",
    "AppUsage",
    "AppVersion",
    "Chunk",
    "Connection",
    "Conversation",
    "Document",
    "DocumentState",
    "DocumentVersion",
    "DriftPolicy",
    "Health",
    "KnowledgeBase",
    "MessageState",
    "Method",
    "Source",
]
