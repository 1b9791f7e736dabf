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
from knowledge.models.deployments import AppDeployment, PortalInDify
from knowledge.models.documents import (
    UNDER_WAY,
    Chunk,
    ChunkVector,
    Document,
    DocumentState,
    DocumentVersion,
    Source,
)
from knowledge.models.evaluations import Evaluation
from knowledge.models.sources import (
    DocumentSource,
    OnRemoved,
    RunState,
    SourceItem,
    SourceKind,
    SourceRun,
)
from knowledge.models.sync import Decision, DeletionReceipt, RemoteObject, Sync, SyncState
from knowledge.models.triggers import (
    StreamEvent,
    Trigger,
    TriggerKind,
    TriggerRun,
    TriggerRunState,
)

__all__ = [
    "UNDER_WAY",
    "App",
    "AppDeployment",
    "AppMessage",
    "AppMode",
    "AppUsage",
    "AppVersion",
    "Chunk",
    "ChunkVector",
    "Connection",
    "Conversation",
    "Decision",
    "DeletionReceipt",
    "Document",
    "DocumentSource",
    "DocumentState",
    "DocumentVersion",
    "DriftPolicy",
    "Evaluation",
    "Health",
    "KnowledgeBase",
    "MessageState",
    "Method",
    "OnRemoved",
    "PortalInDify",
    "RemoteObject",
    "RunState",
    "Source",
    "SourceItem",
    "SourceKind",
    "SourceRun",
    "StreamEvent",
    "Sync",
    "SyncState",
    "Trigger",
    "TriggerKind",
    "TriggerRun",
    "TriggerRunState",
]
