"""What the double remembers: workspaces with their knowledge bases, documents, apps and keys."""

import copy
import hashlib
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.knowledge.dify.recorded import body_of

_batches = itertools.count(1)


def new_id() -> str:
    return str(uuid4())


def now() -> int:
    return int(time.time())


@dataclass
class Segment:
    content: str
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)

    @property
    def keywords(self) -> list[str]:
        return sorted(set(re.findall(r"\w+", self.content)))[:10]

    def shape(self, document: "Document", position: int, *, listed: bool) -> dict[str, Any]:
        """As Dify shows it; one that was lost stays ``indexing`` for ever."""
        body: dict[str, Any]
        if listed:
            body = body_of("kb_segments_list")["data"][0]
            body["sign_content"] = self.content
        else:
            body = body_of("kb_retrieve_keyword_200")["records"][0]["segment"]
            body["document"] |= {"id": document.id, "name": document.name}
        there = document.completed and not document.lost
        return body | {
            "id": self.id,
            "position": position,
            "document_id": document.id,
            "content": self.content,
            "word_count": len(self.content),
            "keywords": self.keywords if there else None,
            "index_node_id": new_id(),
            "index_node_hash": hashlib.sha256(self.content.encode()).hexdigest(),
            "enabled": there,
            "status": "completed" if there else "indexing",
            "created_at": self.created_at,
            "completed_at": self.created_at if there else None,
        }


@dataclass
class Document:
    """A document; ``reads_left`` counts down what is asked about it until it is indexed."""

    name: str
    filename: str
    content: bytes
    position: int
    rule: dict[str, Any]
    reads_left: int
    reads: int
    lost: bool = False
    enabled: bool = True
    archived: bool = False
    updated: bool = False
    unsettled: int = 0
    id: str = field(default_factory=new_id)
    file_id: str = field(default_factory=new_id)
    rule_id: str = field(default_factory=new_id)
    batch: str = field(default_factory=lambda: f"{next(_batches):020d}")
    created_at: int = field(default_factory=now)
    completed_at: int | None = None
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)

    @property
    def completed(self) -> bool:
        return self.reads_left <= 0

    @property
    def indexing_status(self) -> str:
        if self.completed:
            return "completed"
        stages = ("waiting", "parsing", "splitting", "indexing")
        return stages[(self.reads - self.reads_left) * len(stages) // max(self.reads, 1)]

    @property
    def display_status(self) -> str:
        if self.archived:
            return "archived"
        if not self.completed:
            return "queuing" if self.indexing_status == "waiting" else "indexing"
        return "available" if self.enabled else "disabled"

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def split(self) -> None:
        """Cuts the content as its rule says: a custom separator, or all of it in one."""
        rules = self.rule.get("rules") or {}
        separator = (rules.get("segmentation") or {}).get("separator", "")
        custom = self.rule.get("mode") == "custom" and separator
        parts = self.text.split(separator) if custom else [self.text]
        self.segments = [Segment(part.strip()) for part in parts if part.strip()]

    def advance(self) -> None:
        """A moment passes."""
        if self.completed:
            return
        self.reads_left -= 1
        if self.reads_left == 0:
            self.split()
            self.completed_at = now()

    def _upload(self) -> dict[str, Any]:
        extension = self.filename.rpartition(".")[2] if "." in self.filename else "txt"
        template = body_of("kb_document_create_by_text_200")["document"]
        upload: dict[str, Any] = template["data_source_detail_dict"]["upload_file"]
        return upload | {
            "id": self.file_id,
            "name": self.filename,
            "size": len(self.content),
            "extension": extension,
            "created_at": time.time(),
        }

    def _common(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "position": self.position,
            "dataset_process_rule_id": self.rule_id,
            "created_from": "web" if self.updated else "api",
            "created_at": self.created_at,
            "tokens": 0 if self.completed or self.updated else None,
            "indexing_status": self.indexing_status,
            "enabled": self.enabled,
            "archived": self.archived,
            "display_status": self.display_status,
        }

    def shape(self) -> dict[str, Any]:
        """As lists and changes show it."""
        body: dict[str, Any] = body_of("kb_document_create_by_text_200")["document"]
        body |= self._common()
        body["data_source_info"] = {"upload_file_id": self.file_id}
        body["data_source_detail_dict"] = {"upload_file": self._upload()}
        body["word_count"] = len(self.text) if self.completed or self.updated else None
        body["doc_metadata"] = list(self.metadata.values())
        return body

    def detail(self, dataset_id: str) -> dict[str, Any]:
        """As it is shown alone."""
        body: dict[str, Any] = body_of("kb_document_get")
        body |= self._common()
        body["data_source_info"] = {"upload_file": self._upload()}
        body["document_process_rule"] |= {"id": self.rule_id, "dataset_id": dataset_id}
        body["doc_metadata"] = list(self.metadata.values()) or None
        count = len(self.segments)
        body |= {
            "segment_count": count,
            "average_segment_length": len(self.text) // count if count else 0,
            "completed_at": self.completed_at,
            "updated_at": self.completed_at or self.created_at,
            "indexing_latency": 0.04 if self.completed else None,
        }
        return body

    def status(self) -> dict[str, Any]:
        """As its batch's indexing status shows it."""
        name = "kb_indexing_status_completed" if self.completed else "kb_indexing_status_waiting"
        body: dict[str, Any] = body_of(name)["data"][0]
        total = len(self.segments)
        return body | {
            "id": self.id,
            "indexing_status": self.indexing_status,
            "completed_segments": 0 if self.lost else total,
            "total_segments": total,
        }


@dataclass
class Dataset:
    name: str
    description: str
    permission: str
    technique: str | None
    provider: str = "vendor"
    external_api: str | None = None
    external_id: str | None = None
    api_enabled: bool = True
    built_in: bool = False
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)
    updated_at: int = field(default_factory=now)
    retrieval: dict[str, Any] = field(default_factory=dict)
    external_retrieval: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)

    def shape(self, workspace: "Workspace", *, asked: bool = False) -> dict[str, Any]:
        """As Dify shows it; ``asked`` where it is read and was not just changed."""
        body: dict[str, Any] = body_of("kb_dataset_create_economy_200")
        documents = list(self.documents.values())
        body |= {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "provider": self.provider,
            "permission": self.permission,
            "data_source_type": "upload_file" if documents else None,
            "indexing_technique": self.technique,
            "app_count": len(workspace.apps_with(self.id)),
            "document_count": len(documents),
            "word_count": sum(len(d.text) for d in documents if d.completed),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "embedding_available": True if asked else None,
            "tags": [
                {"id": tag, "name": workspace.tags[tag], "type": "knowledge"}
                for tag in sorted(self.tags)
            ],
            "doc_form": "text_model" if documents else None,
            "doc_metadata": [
                {k: f[k] for k in ("id", "name", "type")} for f in self.fields.values()
            ],
            "built_in_field_enabled": self.built_in,
            "total_documents": len(documents),
            "total_available_documents": sum(d.display_status == "available" for d in documents),
            "enable_api": self.api_enabled,
        }
        body["retrieval_model_dict"] |= self.retrieval
        if self.external_api is not None:
            api = workspace.external_apis.get(self.external_api, {})
            body["external_knowledge_info"] = {
                "external_knowledge_id": self.external_id,
                "external_knowledge_api_id": self.external_api,
                "external_knowledge_api_name": api.get("name"),
                "external_knowledge_api_endpoint": api.get("settings", {}).get("endpoint"),
            }
            body["external_retrieval_model"] |= self.external_retrieval
        return body

    def indexed_once(self) -> bool:
        return any(document.completed for document in self.documents.values())


@dataclass
class Message:
    id: str
    query: str
    answer: str
    sources: list[dict[str, Any]] = field(default_factory=list)
    rating: str | None = None
    comment: str | None = None
    created_at: int = field(default_factory=now)


@dataclass
class Conversation:
    user: str
    name: str
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)
    updated_at: int = field(default_factory=now)
    messages: list[Message] = field(default_factory=list)


@dataclass
class App:
    """An app; ``dsl`` is its draft, and ``live`` what was published of it.

    A chat app has no draft: what is written is live.
    """

    name: str
    mode: str
    dsl: dict[str, Any]
    api_enabled: bool = True
    published: int = 0
    live: dict[str, Any] | None = None
    versions: list[dict[str, Any]] = field(default_factory=list)
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)
    updated_at: int = field(default_factory=now)
    keys: list[dict[str, Any]] = field(default_factory=list)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> set[str]:
        """The knowledge bases that its DSL names."""
        return set(_named(self.dsl))

    def publish(self, name: str = "") -> None:
        self.published += 1
        self.live = copy.deepcopy(self.dsl)
        if self.mode != "chat":
            made = f"2026-11-23 17:16:19.{self.published:06d}"
            named = {"id": new_id(), "version": made, "marked_name": name}
            self.versions.insert(0, self._workflow("console_workflow_versions") | named)

    def node(self, kind: str) -> dict[str, Any]:
        """The data of the live graph's first node of a kind; empty without one."""
        graph = (self.live or self.dsl).get("workflow", {}).get("graph", {"nodes": []})
        found = (n["data"] for n in graph["nodes"] if n["data"]["type"] == kind)
        return next(found, {})

    def live_config(self) -> dict[str, Any]:
        """What a chat app is configured by, and of a workflow the same: features and model."""
        if self.mode == "chat":
            config: dict[str, Any] = self.dsl["model_config"]
            return config
        features = (self.live or self.dsl)["workflow"]["features"]
        return {**features, "model": self.node("llm").get("model")}

    def draft(self) -> dict[str, Any]:
        """As the console shows the draft of a workflow or chatflow."""
        return self._workflow("console_workflow_draft_get")

    def history(self) -> list[dict[str, Any]]:
        """Its versions as the console lists them, where the draft stands twice."""
        draft = self._workflow("console_workflow_versions")
        return [draft, *self.versions, draft]

    def _workflow(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = body_of(name)
        body = body["items"][0] if "items" in body else body
        workflow = self.dsl["workflow"]
        told = json.dumps([workflow["graph"], workflow["features"]], sort_keys=True)
        return body | {
            "graph": workflow["graph"],
            "features": workflow["features"],
            "hash": hashlib.sha256(told.encode()).hexdigest(),
        }

    def listed(self) -> dict[str, Any]:
        body: dict[str, Any] = body_of("console_apps_list")["data"][0]
        if self.mode not in ("chat", "completion", "agent-chat"):
            body["model_config"] = None
        return body | self._common()

    def detail(self) -> dict[str, Any]:
        body: dict[str, Any] = body_of("console_app_get")
        config = body["model_config"] | self.dsl.get("model_config", {})
        body["model_config"] = config if self.mode == "chat" else None
        return body | self._common() | {"enable_api": self.api_enabled}

    def _common(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "mode": self.mode,
            "description": str(self.dsl.get("app", {}).get("description", "")),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


def _named(node: Any) -> list[str]:
    """The ids of knowledge bases in a DSL: of a chat app, and of a workflow's nodes."""
    if isinstance(node, list):
        return [found for part in node for found in _named(part)]
    if not isinstance(node, dict):
        return []
    own = [str(i) for i in node.get("dataset_ids") or []]
    chosen = node.get("dataset")
    if isinstance(chosen, dict) and "id" in chosen:
        own.append(str(chosen["id"]))
    return own + [found for part in node.values() for found in _named(part)]


@dataclass
class Workspace:
    name: str
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    apps: dict[str, App] = field(default_factory=dict)
    keys: list[dict[str, Any]] = field(default_factory=list)
    gone_keys: set[str] = field(default_factory=set)
    imports: dict[str, dict[str, Any]] = field(default_factory=dict)
    external_apis: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    default_models: dict[str, str] = field(default_factory=dict)
    embedding: bool = False
    plugin: bool = True

    def apps_with(self, dataset_id: str) -> list[App]:
        return [app for app in self.apps.values() if dataset_id in app.datasets]

    def shape(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "status": "normal",
            "created_at": self.created_at,
        }
