"""What Dify's answers hold that the portal reads; all else in them is passed over."""

from collections.abc import Mapping
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")

Technique = Literal["economy", "high_quality"]
StatusAction = Literal["enable", "disable", "archive", "un_archive"]
SearchMethod = Literal["keyword_search", "semantic_search", "full_text_search", "hybrid_search"]
MetadataType = Literal["string", "number", "time"]

DRAFT: Final = "draft"
"""What Dify calls the version of a workflow that is being written."""
PAGE_SIZE: Final = 100
"""The most that Dify lists at once."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; pages are numbered from 1."""

    data: list[T]
    has_more: bool
    total: int = 0


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """A list that comes whole."""

    data: list[T]


# -- knowledge ---------------------------------------------------------------------------------


class RetrievalModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a knowledge base is searched; Dify wants the first four whenever any is sent.

    Attributes:
        score_threshold: from 0 to 1, in force if ``score_threshold_enabled``.
    """

    search_method: SearchMethod
    reranking_enable: bool
    top_k: int
    score_threshold_enabled: bool
    score_threshold: float | None = None
    reranking_mode: str | None = None
    reranking_model: Mapping[str, Any] | None = None
    weights: Mapping[str, Any] | None = None
    metadata_filtering_conditions: Mapping[str, Any] | None = None


class StoredRetrieval(msgspec.Struct, frozen=True):
    """The retrieval settings that a knowledge base has."""

    search_method: str
    top_k: int
    score_threshold_enabled: bool | None = None
    score_threshold: float | None = None
    reranking_enable: bool | None = None


class Tag(msgspec.Struct, frozen=True):
    id: str
    name: str


class Dataset(msgspec.Struct, frozen=True):
    """A knowledge base; ``indexing_technique`` is null until its first document."""

    id: str
    name: str
    description: str | None
    provider: str
    permission: str
    indexing_technique: str | None
    document_count: int
    retrieval_model_dict: StoredRetrieval
    updated_at: int
    embedding_model: str | None = None
    embedding_model_provider: str | None = None
    enable_api: bool = True
    tags: list[Tag] = []


class UploadedFile(msgspec.Struct, frozen=True):
    id: str
    size: int = 0


class FileSource(msgspec.Struct, frozen=True):
    """Where a document's content lies; each new content is a new file."""

    upload_file: UploadedFile | None = None


class MetadataEntry(msgspec.Struct, frozen=True):
    """A value that a document has; the id of Dify's own fields is ``built-in``."""

    id: str
    name: str
    type: str
    value: str | int | float | None = None


class Document(msgspec.Struct, frozen=True):
    """A document as lists have it.

    Attributes:
        created_from: ``api`` until it is changed, ``web`` if a person made it.
        position: Dify's order, from 1.
        display_status: queuing, indexing, available, disabled, archived, paused or error.
    """

    id: str
    name: str
    position: int
    indexing_status: str
    enabled: bool
    archived: bool
    display_status: str | None
    created_at: int
    error: str | None = None
    word_count: int | None = None
    created_from: str = ""
    data_source_detail_dict: FileSource = FileSource()
    doc_metadata: list[MetadataEntry] | None = None


class DocumentDetail(Document, frozen=True):
    segment_count: int | None = None
    completed_at: float | None = None
    updated_at: float | None = None


class Accepted(msgspec.Struct, frozen=True):
    """A document that Dify took, and the batch under which its indexing is followed."""

    document: Document
    batch: str


class IndexingStatus(msgspec.Struct, frozen=True):
    """How far a document is indexed."""

    id: str
    indexing_status: str
    completed_segments: int
    total_segments: int
    error: str | None = None

    @property
    def indexed(self) -> bool:
        """Whether every segment is: Dify can say ``completed`` of a document that lost them."""
        return self._ended and self.completed_segments == self.total_segments

    @property
    def lost(self) -> bool:
        """Whether Dify says ``completed`` and segments are missing: it must be indexed again."""
        return self._ended and self.completed_segments != self.total_segments

    @property
    def _ended(self) -> bool:
        return self.indexing_status == "completed"


class Segment(msgspec.Struct, frozen=True):
    """A piece of a document."""

    id: str
    position: int
    content: str


class _HitDocument(msgspec.Struct, frozen=True):
    id: str
    name: str


class _HitSegment(msgspec.Struct, frozen=True):
    id: str
    position: int
    content: str
    document: _HitDocument


class Hit(msgspec.Struct, frozen=True):
    """A segment that a query found; keyword search scores 0 always."""

    segment: _HitSegment
    score: float | None


class Hits(msgspec.Struct, frozen=True):
    records: list[Hit]


class MetadataField(msgspec.Struct, frozen=True):
    id: str
    name: str
    type: str


class MetadataFields(msgspec.Struct, frozen=True):
    doc_metadata: list[MetadataField]
    built_in_field_enabled: bool


class MetadataValue(msgspec.Struct, frozen=True):
    """The value of a field at a document."""

    id: str
    name: str
    value: str | int | float | None


class Model(msgspec.Struct, frozen=True):
    model: str
    model_type: str
    status: str


class Provider(msgspec.Struct, frozen=True):
    """The models of one provider."""

    provider: str
    models: list[Model]


# -- the console -------------------------------------------------------------------------------


class Workspace(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str


class Key(msgspec.Struct, frozen=True):
    """An API key; Dify lists them in clear, so that no ``repr`` may show one."""

    id: str
    token: str

    def __repr__(self) -> str:
        return f"Key(id={self.id!r})"


class RelatedApp(msgspec.Struct, frozen=True):
    id: str
    name: str
    mode: str


class App(msgspec.Struct, frozen=True):
    id: str
    name: str
    mode: str
    updated_at: int | None = None


class AppDetail(App, frozen=True):
    """An app; ``model_config`` is null unless it is a chat app, where it is what is live."""

    enable_api: bool = True
    model_config: Mapping[str, Any] | None = None


class Draft(msgspec.Struct, frozen=True):
    """The draft of a workflow or chatflow; Dify fills up what was left out of its features."""

    graph: Mapping[str, Any]
    features: Mapping[str, Any]
    hash: str


class WorkflowVersion(msgspec.Struct, frozen=True):
    """A draft, or what was published when ``version`` says."""

    version: str
    hash: str
    marked_name: str = ""


class WorkflowVersions(msgspec.Struct, frozen=True):
    """The draft first, then the newest."""

    items: list[WorkflowVersion]


class ModelCredential(msgspec.Struct, frozen=True):
    """How a model of a workspace is reached; its key is masked, and all is empty without one."""

    credentials: Mapping[str, Any]
    current_credential_name: str | None


class Import(msgspec.Struct, frozen=True):
    """An import of an app's DSL.

    Attributes:
        status: completed, completed-with-warnings, pending (to be confirmed within ten minutes)
            or failed.
        app_id: null unless it is completed.
    """

    id: str
    status: str
    app_id: str | None
    app_mode: str | None
    current_dsl_version: str
    imported_dsl_version: str
    error: str = ""

    @property
    def completed(self) -> bool:
        return self.status in ("completed", "completed-with-warnings")


class Exported(msgspec.Struct, frozen=True):
    data: str


class Published(msgspec.Struct, frozen=True):
    created_at: int


class InUse(msgspec.Struct, frozen=True):
    is_using: bool
    count: int = 0


class ExternalApi(msgspec.Struct, frozen=True):
    id: str
    name: str


class ProviderName(msgspec.Struct, frozen=True):
    provider: str


class ExternalHit(msgspec.Struct, frozen=True):
    content: str
    title: str | None
    score: float | None


class ExternalHits(msgspec.Struct, frozen=True):
    records: list[ExternalHit]


class MadeWorkspace(msgspec.Struct, frozen=True):
    """The answer of Dify's inner API; it calls a workspace a tenant."""

    tenant: Workspace


class Licence(msgspec.Struct, frozen=True):
    """``none`` in the community edition, ``active`` in a licensed one."""

    status: str


class SystemFeatures(msgspec.Struct, frozen=True):
    """What Dify tells everybody."""

    license: Licence
